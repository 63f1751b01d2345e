"""Large-scale jitter, and transforms that combine several images.

The output has the size of the input image, so these transforms are used after a ``Resize``. Objects of which less than
the fraction ``least_visible`` remains visible are ignored in training; invisible objects are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.config import require_ranges
from tldet.data.crops import crop, selected
from tldet.data.masks import MaskPixels, fit_to_masks, mask_boxes, pixel_counts
from tldet.data.transforms import Draws, LabeledSample, SampleTransform, resized
from tldet.errors import ConfigError, DataError
from tldet.registry import TRANSFORMS
from tldet.structures.image import ImageArray, Size

GRAY = 114  # value of pixels that no image covers
_Range = tuple[float, float]


@TRANSFORMS.register_module()
class LargeScaleJitter(SampleTransform):
    """Scale the image by a random factor and crop it to its original size (Ghiasi et al. 2021, section 3).

    A factor above 1 enlarges a random window. A factor below 1 gives a smaller image, which is padded in its batch.

    Args:
        scale: smallest and largest factor.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
        p: probability.
    """

    def __init__(self, scale: _Range = (0.1, 2.0), least_visible: float = 0.3, p: float = 1.0) -> None:
        self.scale, self.least_visible, self.p = scale, least_visible, p
        require_ranges(self, scale="(0, 10]", least_visible="[0, 1]", p="[0, 1]")
        _require_order("scale", scale)

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Scale the sample, or return it unchanged."""
        if draws.image.random() >= self.p:
            return sample
        return _scaled_window(sample, draws.image.uniform(*self.scale), sample.size, draws.image, self.least_visible)


class _Mixing(SampleTransform):
    """Base class of transforms that combine a sample with others, with probability ``p``."""

    extra = 1

    def __init__(self, p: float) -> None:
        self.p = self.share = p
        require_ranges(self, p="[0, 1]")

    def __call__(self, sample: LabeledSample, draws: Draws, others: Sequence[LabeledSample] = ()) -> LabeledSample:
        """Combine the sample with others."""
        raise NotImplementedError


@TRANSFORMS.register_module()
class Mosaic(_Mixing):
    """Combine random crops of four images that meet at a random center (Bochkovskiy et al. 2020).

    The output has the size of the first image.

    Args:
        scale: smallest and largest factor by which each image is scaled.
        center: range of the center, as fractions of height and width.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
        p: probability.
    """

    extra = 3

    def __init__(
        self, scale: _Range = (0.4, 1.0), center: _Range = (0.3, 0.7), least_visible: float = 0.3, p: float = 0.5
    ) -> None:
        super().__init__(p)
        self.scale, self.center, self.least_visible = scale, center, least_visible
        require_ranges(self, scale="(0, 10]", center="[0, 1]", least_visible="[0, 1]")
        _require_order("scale", scale)
        _require_order("center", center)

    def __call__(self, sample: LabeledSample, draws: Draws, others: Sequence[LabeledSample] = ()) -> LabeledSample:
        """Combine four samples."""
        random, (height, width) = draws.image, sample.size
        y, x = (round(side * random.uniform(*self.center)) for side in (height, width))
        samples = [sample, *others]
        canvas, placed = np.full((height, width, 3), GRAY, np.uint8), []
        for number, (below, right) in zip(random.permutation(4), product((False, True), repeat=2), strict=True):
            limit = (height - y if below else y), (width - x if right else x)
            if min(limit) < 1:
                continue
            scale = random.uniform(*self.scale)
            part = _scaled_window(samples[number], scale, limit, random, self.least_visible)
            h, w = part.size
            y0, x0 = y if below else y - h, x if right else x - w  # the inner corner lies at the center
            canvas[y0 : y0 + h, x0 : x0 + w] = part.image
            placed.append(_moved(part, (y0, x0), (height, width)))
        return _joined(sample, canvas, placed)


@TRANSFORMS.register_module()
class MixUp(_Mixing):
    """Blend the image with a random crop of another one, and keep the objects of both (Zhang et al. 2018, 2019).

    Args:
        weight: smallest and largest weight of the first image.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
        p: probability.
    """

    def __init__(self, weight: _Range = (0.4, 0.6), least_visible: float = 0.3, p: float = 0.5) -> None:
        super().__init__(p)
        self.weight, self.least_visible = weight, least_visible
        require_ranges(self, weight="[0, 1]", least_visible="[0, 1]")
        _require_order("weight", weight)

    def __call__(self, sample: LabeledSample, draws: Draws, others: Sequence[LabeledSample] = ()) -> LabeledSample:
        """Blend two samples."""
        weight = draws.image.uniform(*self.weight)
        part, (y, x) = _placed_window(others[0], sample.size, draws.image, self.least_visible)
        (h, w), image = part.size, sample.image.copy()
        image[y : y + h, x : x + w] = cv2.addWeighted(image[y : y + h, x : x + w], weight, part.image, 1 - weight, 0)
        return _joined(sample, image, [sample, _moved(part, (y, x), sample.size)])


@TRANSFORMS.register_module()
class CopyPaste(_Mixing):
    """Paste objects of another image by their masks (Ghiasi et al. 2021).

    The samples need masks (``data.train.masks=True``). Pasted objects occlude the objects below them, whose masks and
    boxes are reduced to the visible part. Crowd regions and objects without a mask are not pasted.

    Args:
        fraction: probability that an object is pasted.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
        p: probability.
    """

    def __init__(self, fraction: float = 0.5, least_visible: float = 0.3, p: float = 0.5) -> None:
        super().__init__(p)
        self.fraction, self.least_visible = fraction, least_visible
        require_ranges(self, fraction="[0, 1]", least_visible="[0, 1]")

    def __call__(self, sample: LabeledSample, draws: Draws, others: Sequence[LabeledSample] = ()) -> LabeledSample:
        """Paste objects of another sample.

        Raises:
            DataError: the samples have no masks.
        """
        if sample.masks is None:
            raise DataError("transform CopyPaste needs masks; set data.train.masks=True, or remove CopyPaste")
        part, (y, x) = _placed_window(others[0], sample.size, draws.image, self.least_visible)
        assert part.masks is not None
        chosen = (draws.image.random(len(part.boxes)) < self.fraction) & ~part.ignore & (pixel_counts(part.masks) > 0)
        moved = _moved(selected(part, chosen), (y, x), sample.size)
        if not len(moved.boxes):
            return sample
        assert moved.masks is not None
        covered, image = np.asarray(moved.masks.any(0)), sample.image.copy()
        h, w = part.size
        inside = covered[y : y + h, x : x + w]
        image[y : y + h, x : x + w][inside] = part.image[inside]
        return _joined(sample, image, [_uncovered(sample, sample.masks, covered, self.least_visible), moved])


def _uncovered(
    sample: LabeledSample, masks: MaskPixels, covered: NDArray[np.bool_], least_visible: float
) -> LabeledSample:
    """Remove covered pixels (H, W) from the objects of a sample; objects without a mask are unchanged."""
    before, pixels = mask_boxes(masks), pixel_counts(masks)
    left = masks & ~covered[None]
    visible = np.where(pixels > 0, pixel_counts(left) / np.maximum(pixels, 1), 1.0)
    boxes = np.where((visible < 1)[:, None], fit_to_masks(sample.boxes, before, mask_boxes(left)), sample.boxes)
    hidden = replace(sample, boxes=boxes, masks=left, ignore=sample.ignore | (visible < least_visible))
    return selected(hidden, visible > 0)


def _scaled_window(
    sample: LabeledSample, scale: float, limit: Size, random: np.random.Generator, least_visible: float
) -> LabeledSample:
    """Scale a sample, cropped to a random window whose scaled (height, width) is at most ``limit``."""
    size = sample.size
    window = [min(side, max(1, round(most / scale))) for side, most in zip(size, limit, strict=True)]
    part = _random_crop(sample, (window[0], window[1]), random, least_visible)
    scaled = [min(max(1, round(side * scale)), most) for side, most in zip(window, limit, strict=True)]
    return resized(part, (scaled[0], scaled[1]))


def _placed_window(
    sample: LabeledSample, size: Size, random: np.random.Generator, least_visible: float
) -> tuple[LabeledSample, tuple[int, int]]:
    """Crop a sample to at most ``size`` (height, width), and draw the (y, x) of its corner in an image of that size."""
    window = min(sample.size[0], size[0]), min(sample.size[1], size[1])
    y, x = (int(random.integers(whole - side + 1)) for whole, side in zip(size, window, strict=True))
    return _random_crop(sample, window, random, least_visible), (y, x)


def _random_crop(sample: LabeledSample, size: Size, random: np.random.Generator, least_visible: float) -> LabeledSample:
    """Crop a sample to a random window of (height, width)."""
    y, x = (int(random.integers(whole - side + 1)) for whole, side in zip(sample.size, size, strict=True))
    if size == sample.size:
        return sample
    return crop(sample, (x, y, x + size[1], y + size[0]), least_visible)


def _moved(sample: LabeledSample, corner: tuple[int, int], size: Size) -> LabeledSample:
    """Move boxes and masks to (y, x) in an image of ``size``; the image of the sample is unchanged."""
    y, x = corner
    (h, w), masks = sample.size, None
    if sample.masks is not None:
        masks = np.zeros((len(sample.masks), *size), np.uint8)
        masks[:, y : y + h, x : x + w] = sample.masks
    return replace(sample, boxes=sample.boxes + np.array([x, y, x, y], np.float32), masks=masks)


def _joined(sample: LabeledSample, image: ImageArray, parts: Sequence[LabeledSample]) -> LabeledSample:
    """Return a sample with a new image and the objects of several samples."""
    labels = None if sample.labels is None else np.concatenate([np.asarray(part.labels) for part in parts])
    masks = None if sample.masks is None else np.concatenate([np.asarray(part.masks) for part in parts])
    return replace(
        sample,
        image=image,
        boxes=np.concatenate([part.boxes for part in parts]).astype(np.float32),
        rows=np.concatenate([part.rows for part in parts]),
        ignore=np.concatenate([part.ignore for part in parts]),
        masks=masks,
        labels=labels,
    )


def _require_order(name: str, span: _Range) -> None:
    """Reject a range that is not two numbers in ascending order."""
    if len(span) != 2 or span[0] > span[1]:
        raise ConfigError(f"{name} must be two numbers in ascending order, not {span!r}")
