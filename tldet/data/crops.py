"""Random crops for detection, and crops of a fixed size for classification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tldet.config import require_ranges
from tldet.data.albumentation import Albumentation, albumentations
from tldet.data.masks import cut_boxes
from tldet.data.transforms import Draws, LabeledSample, SampleTransform
from tldet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomCrop(SampleTransform):
    """Crop a random window with probability ``p``; the scale is unchanged.

    Args:
        scale: smallest and largest area of the window, as a fraction of the image.
        ratio: smallest and largest width / height.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
        p: probability.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333),
        least_visible: float = 0.3,
        p: float = 0.5,
    ) -> None:
        self.scale, self.ratio, self.p = scale, ratio, p
        self.least_visible = least_visible

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Crop the sample, or return it unchanged."""
        random = draws.image
        height, width = sample.image.shape[:2]
        if random.random() >= self.p:
            return sample
        area = random.uniform(*self.scale) * height * width
        ratio = float(np.exp(random.uniform(*np.log(self.ratio))))
        w, h = min(width, max(1, round((area * ratio) ** 0.5))), min(height, max(1, round((area / ratio) ** 0.5)))
        x, y = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
        return crop(sample, (x, y, x + w, y + h), self.least_visible)


@TRANSFORMS.register_module()
class RandomTile(SampleTransform):
    """Crop a random tile from an image that is larger, for prediction with ``tiles``; the scale is unchanged.

    Place it before ``Resize``, which resizes the tile.

    Args:
        size: width and height of the tile in pixels; an image with a shorter side is not cropped along this side.
        p: probability of a tile; otherwise the whole image is used, because prediction uses it too.
        on_object: probability that the tile contains the center of a random object. Most tiles of a large image contain
            no object.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
    """

    def __init__(self, size: int, p: float = 0.8, on_object: float = 0.8, least_visible: float = 0.3) -> None:
        self.size, self.p, self.on_object, self.least_visible = size, p, on_object, least_visible
        require_ranges(self, size="[1, inf)", p="[0, 1]", on_object="[0, 1]", least_visible="[0, 1]")

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Crop a tile, or return the sample unchanged."""
        random = draws.image
        height, width = sample.image.shape[:2]
        if random.random() >= self.p or max(height, width) <= self.size:
            return sample
        objects = sample.boxes[~sample.ignore]
        box = objects[random.integers(len(objects))] if len(objects) and random.random() < self.on_object else None
        x = self._start(random, width, None if box is None else (box[0] + box[2]) / 2)
        y = self._start(random, height, None if box is None else (box[1] + box[3]) / 2)
        return crop(sample, (x, y, min(x + self.size, width), min(y + self.size, height)), self.least_visible)

    def _start(self, random: np.random.Generator, length: int, center: float | None) -> int:
        """Draw the start of a tile along an axis; the tile contains ``center`` unless it is None."""
        last = max(0, length - self.size)
        low = 0 if center is None else min(max(0, int(center) + 1 - self.size), last)
        high = last if center is None else min(max(0, int(center)), last)
        return int(random.integers(low, high + 1))


def crop(sample: LabeledSample, window: tuple[int, int, int, int], least_visible: float) -> LabeledSample:
    """Crop a sample to an xyxy window; objects with a visible fraction below ``least_visible`` are ignored."""
    x0, y0, x1, y1 = window
    boxes, visible = cut_boxes(sample.boxes, sample.masks, window)
    kept = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(1))
    shown = selected(sample, kept)
    return replace(
        shown,
        image=np.ascontiguousarray(sample.image[y0:y1, x0:x1]),
        boxes=boxes[kept] - np.array((x0, y0, x0, y0), np.float32),
        ignore=(sample.ignore | (visible < least_visible))[kept],
        masks=None if shown.masks is None else shown.masks[:, y0:y1, x0:x1],
    )


def selected(sample: LabeledSample, rows: NDArray[np.bool_]) -> LabeledSample:
    """Select objects of a sample; the image is unchanged."""
    return replace(
        sample,
        boxes=sample.boxes[rows],
        rows=sample.rows[rows],
        ignore=sample.ignore[rows],
        masks=None if sample.masks is None else sample.masks[rows],
        labels=sample.labels_of(rows),
    )


@TRANSFORMS.register_module()
class RandomResizedCrop(Albumentation):
    """Crop a random window and resize it to ``size`` x ``size`` (Szegedy et al. 2015, section 6).

    Args:
        size: height and width of the output in pixels.
        scale: smallest and largest area of the window, as a fraction of the image.
        ratio: smallest and largest width / height of the window.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
    """

    def __init__(
        self,
        size: int = 224,
        scale: tuple[float, float] = (0.25, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333),
        least_visible: float = 0.3,
    ) -> None:
        _check_size(size)
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise ValueError(
                f"scale={scale} must be in ascending order within 0..1, and ratio={ratio} in ascending order above 0"
            )
        library = albumentations()
        cut = library.RandomResizedCrop((size, size), tuple(scale), tuple(ratio), area_for_downscale="image_mask")
        super().__init__(cut, least_visible=least_visible)


@TRANSFORMS.register_module()
class CenterCrop(Albumentation):
    """Resize so that the short side is ``size / share``, and crop the center of ``size`` x ``size``.

    Args:
        size: height and width of the output in pixels.
        share: fraction of the short side that is kept.
    """

    def __init__(self, size: int = 224, share: float = 0.875) -> None:
        _check_size(size)
        if not 0 < share <= 1:
            raise ValueError(f"share={share} must be above 0 and at most 1")
        library = albumentations()
        scale = library.SmallestMaxSize(max(size, round(size / share)), area_for_downscale="image_mask")
        super().__init__(library.Sequential([scale, library.CenterCrop(size, size)], p=1.0), least_visible=0.1)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
