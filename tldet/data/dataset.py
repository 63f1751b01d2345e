"""Datasets of images with objects: the protocol, and samples that are a pure function of the seed and their key."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tldet.coco.partial_labels import annotated_for_some
from tldet.data.checks.images import handle_bad_images
from tldet.data.file_names import resolve_names
from tldet.data.images import read_reduced
from tldet.data.index import AnnotationIndex
from tldet.data.loader import Sample, SampleKey, as_pixels
from tldet.data.segmentations import Segmentations
from tldet.data.transforms import LabeledSample, Pipeline, Transforms
from tldet.errors import DataError
from tldet.registry import DATASETS
from tldet.runtime.images import MAX_PIXELS, Limits, Reduced, fitted_size
from tldet.structures.image import ImageArray, Size
from tldet.structures.target import Target
from tldet.system.inputs import is_file
from tldet.text import counted

log = logging.getLogger(__name__)


@runtime_checkable
class DetectionDataset(Protocol):
    """Interface of a dataset; a class registered in ``tldet.registry.DATASETS`` can be named in a config.

    The loader draws the order, seeds and applies the transforms, and makes batches. The evaluator uses the targets, so
    that no file is needed. Optional attributes:

    - ``target(i) -> Target``: annotations without the image. If missing, each image is loaded once at the start.
    - ``sizes``: (N, 2) (height, width) of the images. If missing, each image is loaded once at the start.
    - ``groups``: (N,) group of each image (a video, a patient); one in several splits is reported when training starts.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Name of each label."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def load(self, index: int, /) -> tuple[ImageArray, Target]:
        """Return an image (H, W, 3) uint8 RGB and its target, with boxes in pixels of that image."""
        ...


class SampleDataset(Dataset[Sample]):
    """Base class of the datasets that the loader reads: transformed samples by key.

    Subclasses read their annotations into :attr:`index`.

    Attributes:
        index: the annotations, with the classes of the model.
        positions: (I,) positions in the index of the images that are used.
        partial: images may be annotated for some of the classes only.

    Args:
        transforms: see :class:`~tldet.data.transforms.Pipeline`.
        seed: random seed of augmentation.
    """

    index: AnnotationIndex
    partial = True

    def __init__(self, transforms: Transforms, seed: int) -> None:
        self.pipeline = Pipeline(transforms)
        self.seed = seed
        self.positions: NDArray[np.int64] = np.zeros(0, np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.index.class_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Category id of each label in the dataset; -1 for a class that the dataset does not have."""
        return self.index.category_ids

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width) of the images that are used."""
        return self.index.sizes[self.positions]

    @property
    def input_sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width) after ``Resize`` as the first transform; later transforms may change it."""
        bounds = self.pipeline.bounds
        if bounds is None:
            return self.sizes
        return np.array([fitted_size(tuple(size), *bounds) for size in self.sizes.tolist()], np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """Return the sample of a key; a plain index stands for epoch 0 and batch 0."""
        epoch, number, batch = SampleKey(0, key, 0) if isinstance(key, int) else key
        extra = self.pipeline.draw_extra((self.seed, epoch, number), len(self))
        positions = self.positions[[number, *extra]].tolist()
        samples = [self._read_sample(position) for position in positions]
        seeds = (self.seed, epoch, number), (self.seed, epoch, batch, 1)
        sample = self.pipeline(samples[0], *seeds, samples[1:])
        return Sample(as_pixels(sample.image), sample.target(self._labeled(positions)), samples[0].size)

    def _read_sample(self, position: int) -> LabeledSample:
        """Read an image with its objects."""
        raise NotImplementedError

    def _labeled(self, positions: Sequence[int]) -> Tensor | None:
        """Return (K,) bool, the classes that are annotated on each of the images; None if all classes are."""
        if self.index.labeled is None or not self.partial:
            return None
        labeled = np.asarray(self.index.labeled[list(positions)].all(0))
        return None if labeled.all() else torch.from_numpy(labeled)


@DATASETS.register_module()
class CocoDataset(SampleDataset):
    """Images and objects of a COCO JSON.

    Args:
        annotations: the JSON.
        images: the image folder.
        transforms: see :class:`~tldet.data.transforms.Pipeline`.
        classes: class names of the model; None takes those of the JSON.
        keep_empty: keep images without objects as background.
        masks: read segmentations too.
        partial: do not train a class as background on images that are not annotated for it (``labeled_category_ids`` in
            the JSON); False treats every image as annotated for all classes.
        seed: random seed of augmentation.
        on_bad_image: "error" rejects images that are missing, unreadable, truncated or differ in size from the
            JSON; "skip" leaves them out and logs them. See :meth:`check_images`.
        max_pixels: largest number of pixels of an image; larger ones are bad images, rejected before they are decoded.
        cache: cache the parsed annotations; see :meth:`AnnotationIndex.load`.
    """

    def __init__(
        self,
        annotations: str,
        images: str,
        transforms: Transforms = (),
        *,
        classes: Sequence[str] | None = None,
        keep_empty: bool = True,
        masks: bool = False,
        partial: bool = True,
        seed: int = 0,
        on_bad_image: Literal["error", "skip"] = "error",
        max_pixels: int = MAX_PIXELS,
        cache: bool = True,
    ) -> None:
        super().__init__(transforms, seed)
        self.index = AnnotationIndex.load(annotations, classes, cache=cache)
        self.on_bad_image, self.max_pixels = on_bad_image, max_pixels
        self.folder = Path(images)
        self.file_names, self.matched = self.index.file_names, False
        self.segmentations = Segmentations(self.index) if masks else None
        self.partial = partial
        objects = np.diff(self.index.offsets)
        self.positions = np.arange(len(self.index)) if keep_empty else objects.nonzero()[0]
        if len(self.positions) < len(self.index):
            empty = counted(len(self.index) - len(self.positions), "image")
            log.info("%s: %s without objects left out", annotations, empty)
        self._log_partial()

    @property
    def original(self) -> AnnotationIndex:
        """Index of the JSON with its own classes."""
        return AnnotationIndex.load(self.index.path)

    def load(self, index: int) -> tuple[ImageArray, Target]:
        """Return an image (H, W, 3) uint8 RGB in full size, and its target."""
        position = int(self.positions[index])
        sample = self._sample(self._read(position, None), position, self.segmentations)
        return sample.image, sample.target(self._labeled([position]))

    def target(self, index: int) -> Target:
        """Return the boxes, labels and ignore flags of an image without decoding it; the target has no masks."""
        position = int(self.positions[index])
        height, width = self.index.sizes[position].tolist()
        undecoded = Reduced(np.empty((height, width, 0), np.uint8))
        return self._sample(undecoded, position, None).target(self._labeled([position]))

    def _read_sample(self, position: int) -> LabeledSample:
        return self._sample(self._read(position, self.pipeline.bounds), position, self.segmentations)

    def _sample(self, image: Reduced, position: int, segmentations: Segmentations | None) -> LabeledSample:
        rows = self.index.rows(position)
        return LabeledSample(
            image.image,
            np.array(self.index.boxes[rows]),
            np.arange(rows.start, rows.stop),
            np.array(self.index.crowd[rows]),
            None if segmentations is None else segmentations.masks(rows, image.whole),
            image.factor,
            np.array(self.index.labels[rows]),
            int(self.index.image_ids[position]),
        )

    def _read(self, position: int, bounds: Size | None) -> Reduced:
        if not self.matched and not is_file(self.folder / self.file_names[position]):
            self.match_file_names()
        height, width = self.index.sizes[position].tolist()
        limits = Limits(self.max_pixels, (height, width))
        try:
            return read_reduced(self.folder / self.file_names[position], bounds, limits)
        except DataError as error:
            raise DataError(f"{error} (image {self.index.image_ids[position]} of {self.index.path})") from None

    def match_file_names(self) -> None:
        """Match the file names of the JSON to those on disk, once, when the first image is missing."""
        if not self.matched:
            self.matched = True
            self.file_names = resolve_names(self.folder, self.file_names, self.index.path)

    def _log_partial(self) -> None:
        if self.index.labeled is None:
            return
        rest = "the other classes are ignored there" if self.partial else "treated as fully annotated (partial=False)"
        log.info("%s: %s; %s", self.index.path, annotated_for_some(self.index.labeled[self.positions]), rest)

    def has_mask(self) -> NDArray[np.bool_]:
        """Return (A,) bool: True for objects of :attr:`index` that have a mask."""
        return self.index.has_segmentation() if self.segmentations is None else self.segmentations.present()

    def check_images(self) -> None:
        """Check all image files; reject or skip the unusable ones, and log the notes of the index.

        Raises:
            DataError: unusable images with ``on_bad_image="error"``, or no usable image is left. The message names the
                first image and counts the others.
        """
        handle_bad_images(self)
        for note in self.index.notes:
            log.warning("%s: %s", self.index.path, note)
