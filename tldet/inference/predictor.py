"""A trained detector that takes pictures as people have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from tldet.data.coco import Sample, as_pixels
from tldet.data.images import Picture, Reduced, fitted_size, from_pillow, read_reduced, resize_to
from tldet.data.loader import by_padded_size, collate
from tldet.engine.fuse import fuse
from tldet.engine.precision import Precision, choose, pick_device
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.structures import Detections, Target
from tldet.transfer.restore import restore

WAITING = 4  # number of batches of images held back until images of the same size fill a batch
TRIAL = 480  # pixels; a picture of at most this long side decides on the number format

Input = "str | Path | NDArray[np.uint8] | Tensor | Any"


class Predictor:
    """A detector with its input size, classes and precision.

    Args:
        model: the detector, on its device. It is changed for inference: norms are folded, and weights are stored in the
            memory layout and precision. ``restore`` of a checkpoint returns an unchanged detector.
        category_ids: category id of each label in the dataset.
        short: length of the short side to which images are resized.
        long: largest length of the long side.
        precision: precision and memory layout.
        nms_per_class: apply NMS per class (True) or across classes (False); None keeps the setting of the model.
    """

    def __init__(
        self,
        model: Detector,
        category_ids: Sequence[int],
        *,
        short: int,
        long: int,
        precision: Precision,
        nms_per_class: bool | None = None,
    ) -> None:
        if nms_per_class is not None:
            set_nms(model, per_class=nms_per_class)
        self.precision = precision
        self.model = precision.store_weights(precision.prepare(fuse(model.eval())))
        self.category_ids = tuple(category_ids)
        self.short, self.long = short, long

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.model.class_names

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:5]) + (", ..." if len(self.class_names) > 5 else "")
        head, size = type(self.model.head).__name__, f"{self.short} x {self.long}"
        return f"Predictor({head}, {len(self.class_names)} classes: {names}; input {size}; {self.precision.describe()})"

    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], score: float = ..., batch: int = ...
    ) -> list[Detections]: ...
    @overload
    def predict(self, images: Any, score: float = ..., batch: int = ...) -> Detections: ...
    def predict(self, images: Any, score: float = 0.05, batch: int = 4) -> Detections | list[Detections]:
        """Detect.

        Args:
            images: a path, a (H, W, 3) uint8 RGB array, a PIL picture, a (3, H, W) uint8 RGB tensor, what :meth:`open`
                gave, or a list of such. A large JPEG is best given as a path: only as much of it is decoded as needed.
            score: least score; below the head's own least score (``score`` in its settings) nothing is found at all.
            batch: largest number of images per batch. A batch contains images of one padded size only, so that the
                detections of an image do not depend on the others.

        Returns:
            Detections in pixels of the upright image; for a list, a list in the same order.

        Raises:
            DataError: a picture cannot be read.
            TypeError: it is none of the above.
            ValueError: ``batch`` is less than 1.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        if not isinstance(images, (list, tuple)):
            return self._predict([self._sample(images)])[0].above(score)
        found: dict[int, Detections] = {}
        for group in by_padded_size(map(self._sample, images), batch, WAITING * batch):
            numbers, samples = zip(*group, strict=True)
            found.update(zip(numbers, (one.above(score) for one in self._predict(samples)), strict=True))
        return [found[number] for number in range(len(images))]

    def open(self, image: Any) -> Reduced:
        """A picture as :meth:`predict` takes it, ready for it: a JPEG file is read no larger than it is needed."""
        if isinstance(image, Reduced):
            return image
        if isinstance(image, (str, Path)):
            return read_reduced(image, (self.short, self.long))
        return Reduced(as_picture(image))

    def _sample(self, image: Any) -> Sample:
        picture = self.open(image)
        small = resize_to(picture.image, fitted_size(picture.whole, self.short, self.long))
        return Sample(as_pixels(small), _nothing(), picture.whole)

    def _predict(self, samples: Sequence[Sample]) -> list[Detections]:
        device = next(self.model.parameters()).device
        with torch.inference_mode(), self.precision.autocast():
            return [found.to("cpu") for found in self.model.predict(collate(samples).to(device))]


def _nothing() -> Target:
    """The target of a picture of which nothing is known."""
    return Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))


def as_picture(image: Any) -> Picture:
    """(H, W, 3) uint8 RGB of an array, tensor or PIL picture."""
    if isinstance(image, Tensor):
        image = image.cpu().numpy().transpose(1, 2, 0)
    elif hasattr(image, "convert"):
        image = from_pillow(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        shape = getattr(image, "shape", type(image).__name__)
        raise TypeError(f"a picture is a path, (H, W, 3) uint8 RGB array, (3, H, W) uint8 tensor or PIL; not {shape}")
    return image


def load(
    path: str | Path, device: str = "auto", precision: str = "auto", *, nms_per_class: bool | None = None
) -> Predictor:
    """The detector of a tldet checkpoint, ready to predict.

    Args:
        path: the checkpoint.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        nms_per_class: see :class:`Predictor`.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: there is no such device, or the model does not apply NMS.
    """
    model, state = restore(path)
    where = pick_device(device)
    model.to(where)
    meta = state["meta"]
    chosen = choose_for(model, where, precision, **meta["input"])
    return Predictor(model, meta["category_ids"], **meta["input"], precision=chosen, nms_per_class=nms_per_class)


def choose_for(model: Detector, device: torch.device, requested: str, short: int, long: int) -> Precision:
    """The number format to predict in, measured where the processor has two to choose from.

    Args:
        model: in eval mode.
        device: where the model is.
        requested: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        short: short side of the pictures; the ones of the measurement have at most 480 pixels on
        long: their long side.
    """
    height, width = fitted_size((short, long), min(short, TRIAL), min(long, TRIAL))
    samples = [Sample(torch.full((3, height, width), 128, dtype=torch.uint8), _nothing(), (height, width))]
    batch = collate(samples).to(device)

    def trial() -> None:
        with torch.no_grad():
            model.predict(batch)

    return choose(model, device, requested, trial, f"predicting {height} x {width}")
