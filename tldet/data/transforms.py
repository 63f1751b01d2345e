"""Augmentation: the image, its boxes, flags and masks together.

A config names steps; a :class:`Pipeline` runs them. What a sample becomes is a function of its seed alone. Boxes carry
their row number through every step, so that labels, ignore flags and masks follow their boxes whatever is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import cv2
import numpy as np

from tldet.config import build, require_ranges
from tldet.data.images import fitted_size, resize_to
from tldet.data.masks import cut_boxes, resize_masks
from tldet.data.steps import CustomStep, Draws, LabeledSample, Step
from tldet.registry import TRANSFORMS
from tldet.structures.image import ImageArray

TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC, from RGB
FROM_YIQ = np.linalg.inv(TO_YIQ)


@TRANSFORMS.register_module()
class Resize(Step):
    """Scale so that the short side is ``short`` and the long side at most ``long``; the ratio is kept.

    Args:
        short: pixels, or several to choose from (multi-scale training).
        long: pixels.
        mode: "value" draws one of ``short``, "range" any size between its first and last.
        draw: anew for each "image", or once a "batch", which then is padded little and takes less time.
    """

    def __init__(
        self,
        short: int | Sequence[int] = 800,
        long: int = 1333,
        mode: Literal["value", "range"] = "value",
        draw: Literal["image", "batch"] = "image",
    ) -> None:
        self.short = [short] if isinstance(short, int) else list(short)
        if not self.short or min(self.short) < 1 or long < 1:
            raise ValueError(f"short={short} and long={long} must be at least 1")
        if mode == "range" and self.short[0] > self.short[-1]:
            raise ValueError(f"short={short} must rise from its least to its greatest for mode='range'")
        self.long, self.mode, self.draw = long, mode, draw

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Resize the sample."""
        generator = draws.batch if self.draw == "batch" else draws.image
        if self.mode == "range":
            short = int(generator.integers(self.short[0], self.short[-1] + 1))
        else:
            short = self.short[int(generator.integers(len(self.short)))]
        old = (sample.image.shape[0] * sample.reduced, sample.image.shape[1] * sample.reduced)
        new = fitted_size(old, short, self.long)
        factor = np.array([new[1] / old[1], new[0] / old[0]] * 2, np.float32)
        masks = None if sample.masks is None else resize_masks(sample.masks, new)
        return replace(sample, image=resize_to(sample.image, new), boxes=sample.boxes * factor, masks=masks, reduced=1)


class _Flip(Step):
    """Mirror along an axis of the image (0 the rows, 1 the columns) with probability ``p``."""

    axis: int

    def __init__(self, p: float = 0.5) -> None:
        self.p = p
        require_ranges(self, p="[0, 1]")

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Mirror the sample or leave it."""
        if draws.image.random() >= self.p:
            return sample
        low, high = 1 - self.axis, 3 - self.axis  # of the boxes' columns
        boxes = sample.boxes.copy()
        boxes[:, [low, high]] = sample.image.shape[self.axis] - sample.boxes[:, [high, low]]
        masks = None if sample.masks is None else np.ascontiguousarray(np.flip(sample.masks, self.axis + 1))
        return replace(sample, image=cast(ImageArray, cv2.flip(sample.image, self.axis)), boxes=boxes, masks=masks)


@TRANSFORMS.register_module()
class HorizontalFlip(_Flip):
    """Mirror left and right with probability ``p``."""

    axis = 1


@TRANSFORMS.register_module()
class VerticalFlip(_Flip):
    """Mirror top and bottom with probability ``p``; for images without an up, such as those of a microscope."""

    axis = 0


@TRANSFORMS.register_module()
class ColorJitter(Step):
    """Change brightness, contrast, saturation and hue with probability ``p``.

    All four are one matrix on the colors of a pixel, so that an image is passed over once: brightness is a factor,
    contrast a factor of the distance from the image's mean gray, saturation one of the distance from the pixel's own,
    hue a turn of the two color axes of YIQ.

    Args:
        brightness: the factor lies within 1 minus and plus this, as do those of
        contrast: and
        saturation: below.
        hue: turns within minus and plus this, as a share of the whole circle.
        p: probability.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.02,
        p: float = 0.5,
    ) -> None:
        self.brightness, self.contrast, self.saturation, self.hue, self.p = brightness, contrast, saturation, hue, p
        factors = dict.fromkeys(("brightness", "contrast", "saturation"), "[0, inf)")
        require_ranges(self, hue="[0, 0.5]", p="[0, 1]", **factors)

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Recolour the sample or leave it."""
        random = draws.image
        if random.random() >= self.p:
            return sample
        spans = (self.brightness, self.contrast, self.saturation)
        bright, contrast, saturation = (random.uniform(max(0.0, 1 - span), 1 + span) for span in spans)
        turn = 2 * np.pi * random.uniform(-self.hue, self.hue)
        cos, sin = np.cos(turn), np.sin(turn)
        turned = FROM_YIQ @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ TO_YIQ
        colors = turned @ (saturation * np.eye(3) + (1 - saturation) * TO_YIQ[0])  # a gray stays what it is
        gray = float(sample.image[::8, ::8].mean((0, 1)) @ TO_YIQ[0])
        matrix = np.empty((3, 4))
        matrix[:, :3], matrix[:, 3] = bright * contrast * colors, bright * (1 - contrast) * gray
        return replace(sample, image=cast(ImageArray, cv2.transform(sample.image, matrix)))


@TRANSFORMS.register_module()
class RandomCrop(Step):
    """Cut out a part, with probability ``p``.

    Args:
        scale: least and greatest share of the image's area.
        ratio: least and greatest width / height.
        least_visible: an object of which less than this share remains is no object to find, and no background.
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
        """Cut the sample; pixels keep their size."""
        random = draws.image
        height, width = sample.image.shape[:2]
        if random.random() >= self.p:
            return sample
        area = random.uniform(*self.scale) * height * width
        ratio = float(np.exp(random.uniform(*np.log(self.ratio))))
        w, h = min(width, max(1, round((area * ratio) ** 0.5))), min(height, max(1, round((area / ratio) ** 0.5)))
        x, y = int(random.integers(width - w + 1)), int(random.integers(height - h + 1))
        return _cut(sample, (x, y, x + w, y + h), self.least_visible)


def _cut(sample: LabeledSample, window: tuple[int, int, int, int], least_visible: float) -> LabeledSample:
    """Crop a sample to an xyxy window; objects with a visible fraction below ``least_visible`` are ignored."""
    x0, y0, x1, y1 = window
    boxes, share = cut_boxes(sample.boxes, sample.masks, window)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return replace(
        sample,
        image=np.ascontiguousarray(sample.image[y0:y1, x0:x1]),
        boxes=boxes[kept] - np.array((x0, y0, x0, y0), np.float32),
        rows=sample.rows[kept],
        ignore=(sample.ignore | (share < least_visible))[kept],
        masks=None if sample.masks is None else sample.masks[kept, y0:y1, x0:x1],
        labels=sample.labels_of(kept),
    )


def _step(section: Mapping[str, Any], path: str) -> Step:
    """Build the step of a config section."""
    built = build(TRANSFORMS, section, path)
    return built if isinstance(built, Step) else CustomStep(built, f"{path}: transform {section['type']}")


class Pipeline:
    """The steps of a config, in order.

    Args:
        steps: one dict a step; ``type`` names it, the rest are its arguments.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        self.steps = [_step(section, f"transforms.{number}") for number, section in enumerate(steps)]

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The greatest (short side, long side) that images are first scaled to; None where a first step does more."""
        first = self.steps[0] if self.steps else None
        return (max(first.short), first.long) if isinstance(first, Resize) else None

    def __call__(self, sample: LabeledSample, seed: Sequence[int], batch_seed: Sequence[int]) -> LabeledSample:
        """Run every step; the outcome is a function of the sample and the two seeds."""
        draws = Draws(np.random.default_rng(list(seed)), np.random.default_rng(list(batch_seed)))
        for step in self.steps:
            sample = step(sample, draws)
        return sample
