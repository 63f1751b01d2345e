"""A COCO-format data set: one sample at a time, augmented as a pure function of the seed and its key."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tldet.coco.objects import NAMED
from tldet.data.checks import MISSING, Fault, find_faults, log_all
from tldet.data.dataset import SampleDataset
from tldet.data.file_names import resolve_names
from tldet.data.image_size import MAX_PIXELS, Limits
from tldet.data.images import Reduced, missing_images, read_reduced
from tldet.data.index import AnnotationIndex
from tldet.data.masks import decode_mask
from tldet.data.steps import LabeledSample
from tldet.errors import DataError
from tldet.registry import DATASETS
from tldet.structures.image import ImageArray, Size
from tldet.structures.target import Target
from tldet.text import counted

log = logging.getLogger(__name__)


@DATASETS.register_module()
class CocoDataset(SampleDataset):
    """Images and objects of a COCO JSON.

    Args:
        annotations: the JSON.
        images: the image folder.
        transforms: transforms for :class:`~tldet.data.transforms.Pipeline`.
        classes: class names of the model; None takes those of the JSON.
        keep_empty: keep images without objects as background.
        masks: read segmentations too.
        partial: do not train classes as background on images that are not annotated for them, if the JSON states this;
            False treats every image as annotated for all classes.
        seed: random seed of augmentation.
        on_bad_image: "error" rejects images that are missing, unreadable, truncated or of another size than in the
            JSON; "skip" leaves them out and logs them. See :meth:`check_images`.
        max_pixels: largest number of pixels of an image; larger ones are bad images, rejected before they are decoded.
    """

    def __init__(
        self,
        annotations: str,
        images: str,
        transforms: Sequence[Mapping[str, Any]] = (),
        *,
        classes: Sequence[str] | None = None,
        keep_empty: bool = True,
        masks: bool = False,
        partial: bool = True,
        seed: int = 0,
        on_bad_image: Literal["error", "skip"] = "error",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__(transforms, seed)
        self.index = AnnotationIndex.load(annotations, classes)
        self.on_bad_image, self.max_pixels = on_bad_image, max_pixels
        self.folder = Path(images)
        self.file_names = resolve_names(self.folder, self.index.file_names, self.index.path)
        self.masks, self.partial = masks, partial
        self.outlines = self._read_outlines() if masks else {}
        objects = np.diff(self.index.offsets)
        self.positions = np.arange(len(self.index)) if keep_empty else objects.nonzero()[0]
        if len(self.positions) < len(self.index):
            empty = counted(len(self.index) - len(self.positions), "image")
            log.info("%s: %s without objects left out", annotations, empty)
        self._say_partial()

    @property
    def original(self) -> AnnotationIndex:
        """Index of the JSON with its own classes."""
        return AnnotationIndex.load(self.index.path)

    def load(self, index: int) -> tuple[ImageArray, Target]:
        """Return an image (H, W, 3) uint8 RGB in full size, and its target."""
        position = int(self.positions[index])
        sample = self._sample(self._read(position, None), position, masks=self.masks)
        return sample.image, self._target_of(sample, position)

    def target(self, index: int) -> Target:
        """Return the boxes, labels and ignore flags of an image without decoding it; the target has no masks."""
        position = int(self.positions[index])
        height, width = self.index.sizes[position].tolist()
        unread = Reduced(np.empty((height, width, 0), np.uint8))
        return self._target_of(self._sample(unread, position, masks=False), position)

    def _read_sample(self, position: int) -> tuple[LabeledSample, Size]:
        image = self._read(position, self.pipeline.bounds)
        return self._sample(image, position, masks=self.masks), image.whole

    def _sample(self, image: Reduced, position: int, *, masks: bool) -> LabeledSample:
        rows = self.index.rows(position)
        return LabeledSample(
            image.image,
            np.array(self.index.boxes[rows]),
            np.arange(rows.start, rows.stop),
            np.array(self.index.crowd[rows]),
            self._masks(rows, image.whole) if masks else None,
            image.factor,
            np.array(self.index.labels[rows]),
            int(self.index.image_ids[position]),
        )

    def _read(self, position: int, bounds: tuple[int, int] | None) -> Reduced:
        path, stated = self.folder / self.file_names[position], self.index.sizes[position]
        limits = Limits(self.max_pixels, (int(stated[0]), int(stated[1])))
        try:
            image = read_reduced(path, bounds, limits)
        except DataError as error:
            raise DataError(f"{error} (image {self.index.image_ids[position]} of {self.index.path})") from None
        if image.whole != tuple(stated):
            raise DataError(
                f"{path}: is {image.whole[1]} x {image.whole[0]} upright, but {self.index.path} says "
                f"{stated[1]} x {stated[0]} for image {self.index.image_ids[position]}; its boxes would be off"
            )
        return image

    def _say_partial(self) -> None:
        if self.index.labeled is None:
            return
        some = int((~self.index.labeled[self.positions].all(1)).sum())
        then = "the absence of the others teaches nothing" if self.partial else "taken as if they were: partial=False"
        log.info("%s: %d of %d images are annotated for some classes only; %s", self.index.path, some, len(self), then)

    def _read_outlines(self) -> dict[int, Any]:
        changed = self.index.outlines()
        if changed:
            ids = ", ".join(str(one) for one in self.index.annotation_ids[list(changed)[:NAMED]])
            more = ", ..." if len(changed) > NAMED else ""
            text = "%s: polygons with fewer than 3 points dropped from %s (annotation %s%s)"
            log.warning(text, self.index.path, counted(len(changed), "segmentation"), ids, more)
        return changed

    def outlined(self) -> NDArray[np.bool_]:
        """Return (A,) bool: True for objects of :attr:`index` that have a mask."""
        found = self.index.has_segmentation()
        found[[row for row, outline in self.outlines.items() if outline is None]] = False
        return found

    def _masks(self, rows: slice, size: Size) -> NDArray[np.uint8]:
        masks = [self._mask(row, size) for row in range(rows.start, rows.stop)]
        return np.stack(masks) if masks else np.zeros((0, *size), np.uint8)

    def _mask(self, row: int, size: Size) -> NDArray[np.uint8]:
        try:
            found = self.outlines[row] if row in self.outlines else self.index.segmentation(row)
            return decode_mask(found, size)
        except DataError as error:
            raise DataError(f"{self.index.path}: annotation id {self.index.annotation_ids[row]} {error}") from None

    def check_images(self) -> None:
        """Check all image files; reject or skip the unusable ones, and log the notes of the index.

        Raises:
            DataError: unusable images with ``on_bad_image="error"``, or no usable image is left. The message names the
                first image and counts the others.
        """
        faults = self._faults()
        if faults and self.on_bad_image == "error":
            self._refuse(faults)
        if faults:
            self._skip(faults)
        for note in self.index.notes:
            log.warning("%s: %s", self.index.path, note)

    def usable_ids(self) -> list[int]:
        """Return the ids of the images that :meth:`check_images` accepts."""
        bad = {one.position for one in self._faults()}
        return [int(self.index.image_ids[position]) for position in self.positions.tolist() if position not in bad]

    def _faults(self) -> list[Fault]:
        sizes, path = self.index.sizes, self.index.path
        return find_faults(self.folder, self.file_names, sizes, path, self.positions.tolist(), self.max_pixels)

    def _refuse(self, faults: Sequence[Fault]) -> None:
        missing = [self.file_names[one.position] for one in faults if one.problem == MISSING]
        if missing:
            error = missing_images(self.folder, missing, len(self), self.index.path)
            raise DataError(f"{error}; add them, or skip them with --on-bad-image skip")
        lines = [self._fault(one) for one in faults]
        if len(lines) > 1:
            log_all(lines)
        more = f" (and {len(lines) - 1} more, listed above)" if len(lines) > 1 else ""
        raise DataError(
            f"{self.index.path}: {len(lines)} of {len(self)} images cannot be used: {lines[0]}{more}; repair or "
            "replace them, or skip them with --on-bad-image skip"
        )

    def _skip(self, faults: Sequence[Fault]) -> None:
        log_all([self._fault(one) for one in faults])
        total = len(self)
        self.positions = np.setdiff1d(self.positions, [one.position for one in faults])
        if not total - len(faults):
            raise DataError(f"{self.index.path}: none of the {total} images can be used; check the files")
        log.warning("%s: %d of %d images skipped", self.index.path, len(faults), total)

    def _fault(self, one: Fault) -> str:
        image = f"image {self.index.image_ids[one.position]}"
        return f"{self.folder / self.file_names[one.position]}: {one.problem} ({image})"
