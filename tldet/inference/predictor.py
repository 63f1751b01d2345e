"""Prediction with a trained detector on paths, URLs, bytes, PIL images, arrays and tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, overload

import torch

from tldet.data.loader import Sample, as_pixels, collate
from tldet.engine.precision import Precision
from tldet.errors import DataError
from tldet.inference import OVERLAP
from tldet.inference.convert import is_list, open_image
from tldet.inference.runtimes.exported import ExportedDetector, refuse_nms
from tldet.inference.scores import select_scores
from tldet.inference.stream import PreparedImage, StreamResult, stream
from tldet.inference.tiling import Tiling
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.models.surgery.fuse import fuse
from tldet.runtime.arrays import Channels
from tldet.runtime.images import MAX_PIXELS, Limits, Reduced, fitted_size, resize_to
from tldet.runtime.scores import ScoreSettings
from tldet.structures.detections import Detections
from tldet.structures.target import Target
from tldet.text import counted

log = logging.getLogger(__name__)
OnError = Literal["raise", "skip"]


class Predictor:
    """A detector with its input size, classes and precision.

    Args:
        model: the detector, on its device, or an exported one. A detector is modified for inference: norms are folded,
            and weights are converted to the memory layout and precision. Use ``restore`` to get an unmodified detector
            from a checkpoint.
        category_ids: category id of each label in the dataset.
        short: length of the short side to which images are resized.
        long: largest length of the long side.
        precision: precision and memory layout.
        nms_per_class: apply NMS per class (True) or across classes (False); None keeps the setting of the model.
        max_pixels: largest number of pixels of an image file; larger ones are rejected before they are decoded.
        tiles: width and height in pixels of the tiles into which larger images are cut (see
            :mod:`tldet.inference.tile_merging`); None predicts on whole images.
        overlap: minimum overlap of neighboring tiles, as a fraction of ``tiles``.
        scores: score thresholds and temperature of the checkpoint.
    """

    def __init__(
        self,
        model: Detector | ExportedDetector,
        category_ids: Sequence[int],
        *,
        short: int,
        long: int,
        precision: Precision,
        nms_per_class: bool | None = None,
        max_pixels: int = MAX_PIXELS,
        tiles: int | None = None,
        overlap: float = OVERLAP,
        scores: ScoreSettings | None = None,
    ) -> None:
        if isinstance(model, ExportedDetector):
            refuse_nms(nms_per_class)
            self.model: Detector | ExportedDetector = model
        else:
            if nms_per_class is not None:
                set_nms(model, per_class=nms_per_class)
            self.model = precision.store_weights(precision.prepare(fuse(model.eval())))
        self.precision = precision
        self.category_ids = tuple(category_ids)
        self.short, self.long = short, long
        self.limits = Limits(max_pixels)
        self.tiling = None if tiles is None else Tiling(tiles, overlap, nms_per_class is not False)
        self.scores = scores or ScoreSettings()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.model.class_names

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device if isinstance(self.model, ExportedDetector) else next(self.model.parameters()).device

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:5]) + (", ..." if len(self.class_names) > 5 else "")
        model = self.model
        head = model.head if isinstance(model, ExportedDetector) else type(model.head).__name__
        size = f"{self.short} x {self.long}"
        classes = counted(len(self.class_names), "class", "classes")
        return f"Predictor({head}, {classes}: {names}; input {size}; {self.precision.describe()})"

    @overload
    def predict(self, images: str | Path | Reduced, score: float | None = ..., batch: int = ...) -> Detections: ...
    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        score: float | None = ...,
        batch: int = ...,
        *,
        channels: Channels = ...,
    ) -> list[Detections]: ...
    @overload
    def predict(
        self,
        images: Any,
        score: float | None = ...,
        batch: int = ...,
        *,
        channels: Channels = ...,
        on_error: OnError = ...,
    ) -> Any: ...
    def predict(
        self,
        images: Any,
        score: float | None = None,
        batch: int = 4,
        *,
        channels: Channels = "rgb",
        on_error: OnError = "raise",
    ) -> Any:
        """Detect objects in one image or several.

        Args:
            images: an image, or a list, iterator or (N, ...) array of images. An image is a path, an http(s) URL,
                encoded content (bytes or a binary file object), a PIL image, the output of :meth:`open`, or an array or
                tensor of shape (H, W), (H, W, C) or (C, H, W): gray, gray and alpha, RGB or RGBA, as uint8, uint16,
                bool, or float in 0..1. An iterator is consumed in advance as far as necessary to fill batches. Pass
                large JPEGs as paths: they are decoded at a reduced size if possible.
            score: score threshold; None for those of the checkpoint, else 0.3. Detections below the threshold of the
                head itself (``score_thr`` in its settings) are never returned.
            batch: largest number of images per batch. A batch contains images of one padded size only, so that the
                detections of an image do not depend on the others.
            channels: channel order of arrays and tensors, ``rgb`` or ``bgr`` (as OpenCV reads them).
            on_error: ``raise`` stops at an image that cannot be read; ``skip`` logs it and returns None in its place.

        Returns:
            :class:`~tldet.structures.detections.Detections` in pixels of the upright image; for several images, a list
            in the same order.

        Raises:
            DataError: an image cannot be read or converted; it is also a TypeError for objects that are not images.
            ValueError: ``batch`` is less than 1, ``score`` is not in 0..1, or ``channels`` or ``on_error`` is unknown.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        if score is not None and not 0 <= score <= 1:
            raise ValueError(f"score must be from 0 to 1, not {score}")
        for name, value, known in (("channels", channels, Channels), ("on_error", on_error, OnError)):
            if value not in get_args(known):
                raise ValueError(f"{name} must be {' or '.join(map(repr, get_args(known)))}, not {value!r}")
        several = is_list(images)
        items = self._opened(images if several else [images], channels, on_error, numbered=several)
        results = {number: one for group in self.stream(items, score, batch) for number, one in group}
        found = [None if isinstance(results[i], DataError) else results[i] for i in range(len(results))]
        return found if several else found[0]

    __call__ = predict

    def open(self, image: Any, *, channels: Channels = "rgb", name: str = "image") -> Reduced:
        """Read an image of any type that :meth:`predict` accepts; JPEGs are decoded at a reduced size if possible."""
        bounds = self.tiling.bounds(self.short, self.long) if self.tiling else (self.short, self.long)
        return open_image(image, bounds, channels=channels, limits=self.limits, name=name)

    def prepare(self, image: Reduced) -> PreparedImage:
        """Resize an image, or cut it into tiles and resize the tiles, for :meth:`stream`."""
        views, tiles = self.tiling.cut(image) if self.tiling else ([image], None)
        return PreparedImage([self.sample(view) for view in views], tiles)

    def stream(
        self, items: Iterable[PreparedImage | DataError], score: float | None = None, batch: int = 4
    ) -> Iterator[list[tuple[int, StreamResult]]]:
        """Detect objects in images as they arrive; see :func:`~tldet.inference.stream.stream`."""
        return stream(
            items, self._predict, select=partial(select_scores, settings=self.scores, score=score), batch=batch
        )

    def sample(self, image: Reduced) -> Sample:
        """Resize an image to the input size of the model."""
        small = resize_to(image.image, fitted_size(image.whole, self.short, self.long))
        return Sample(as_pixels(small), no_target(), image.whole)

    def _predict(self, samples: Sequence[Sample]) -> list[Detections]:
        autocast = nullcontext() if isinstance(self.model, ExportedDetector) else self.precision.autocast()
        with torch.inference_mode(), autocast:
            return [found.to("cpu") for found in self.model.predict(collate(samples).to(self.device))]

    def _opened(
        self, images: Iterable[Any], channels: Channels, on_error: OnError, *, numbered: bool
    ) -> Iterator[PreparedImage | DataError]:
        """Yield the images that can be read, ready for the model, and with "skip" the errors of the others."""
        for number, image in enumerate(images):
            name = f"image {number}" if numbered else "image"
            try:
                opened = self.open(image, channels=channels, name=name)
                prepared = self.prepare(opened)
            except DataError as error:
                if on_error == "raise":
                    raise
                log.warning("%s skipped: %s", name, error)
                yield error
                continue
            if opened is not image and opened.frames > 1:
                log.warning("%s: has %d frames, of which the first is used", name, opened.frames)
            yield prepared


def no_target() -> Target:
    """Return the target of an image without annotations."""
    return Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
