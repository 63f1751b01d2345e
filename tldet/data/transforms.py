"""Transforms of images with their boxes, flags and masks, and the pipeline that runs them.

The output for a sample is a pure function of the sample and its seed. Boxes carry their row number through every
transform, so that labels, ignore flags and masks follow them when objects are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.config import build, require_ranges
from tldet.data.custom_transforms import CustomTransform
from tldet.data.masks import resize_masks
from tldet.registry import TRANSFORMS
from tldet.runtime.images import fitted_size, resize_to
from tldet.structures.image import LARGEST_SIDE, ImageArray, Size
from tldet.structures.target import Target

OTHERS_STREAM, CHOICE_STREAM, USE_STREAM = 2, 3, 4  # of random numbers: of further samples, their choice and their use
Seed = Sequence[int]
Transforms = Sequence[Mapping[str, Any] | Callable[..., Any]]


@dataclass
class LabeledSample:
    """An image and its objects.

    Attributes:
        image: (H, W, 3) uint8.
        boxes: (N, 4) xyxy.
        rows: (N,) row of each box in the index of the dataset; -1 for boxes that a transform has added.
        ignore: (N,) bool, True for objects that are neither positive nor background.
        masks: (N, H, W) uint8, or None.
        reduced: factor by which the image is smaller than its boxes and masks (see
            :func:`~tldet.data.images.read_reduced`); ``Resize`` as the first transform makes it 1.
        labels: (N,) int64; None without classes of objects.
        image_id: id of the image.
    """

    image: ImageArray
    boxes: NDArray[np.float32]
    rows: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    masks: NDArray[np.uint8] | None = None
    reduced: int = 1
    labels: NDArray[np.int64] | None = None
    image_id: int = 0

    @property
    def size(self) -> Size:
        """(height, width) at full size."""
        return self.image.shape[0] * self.reduced, self.image.shape[1] * self.reduced

    def labels_of(self, rows: Any) -> NDArray[np.int64] | None:
        """Return the labels of some rows, given by index or as a mask."""
        return None if self.labels is None else self.labels[rows]

    def target(self, labeled: Tensor | None = None, *, copy: bool = False) -> Target:
        """Return the objects as a target.

        Args:
            labeled: (K,) bool, classes annotated on the image; None for all.
            copy: copy the arrays instead of sharing their memory.
        """
        array = np.array if copy else np.ascontiguousarray
        labels = np.zeros(len(self.boxes), np.int64) if self.labels is None else self.labels
        return Target(
            boxes=torch.from_numpy(array(self.boxes, np.float32)),
            labels=torch.from_numpy(array(labels)),
            ignore=torch.from_numpy(array(self.ignore)),
            image_id=self.image_id,
            masks=None if self.masks is None else torch.from_numpy(array(self.masks)),
            labeled=labeled,
        )


class Draws(NamedTuple):
    """Random generators: one of the image, and one that is equal for all images of its batch."""

    image: np.random.Generator
    batch: np.random.Generator


class SampleTransform:
    """Base class of tldet's own transforms."""

    extra = 0  # further samples that the transform needs, as third argument
    share = 1.0  # probability with which it needs them

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Transform a sample."""
        raise NotImplementedError


def resized(sample: LabeledSample, size: Size) -> LabeledSample:
    """Resize a sample to (height, width)."""
    old = sample.size
    factor = np.array([size[1] / old[1], size[0] / old[0]] * 2, np.float32)
    masks = None if sample.masks is None else resize_masks(sample.masks, size)
    return replace(sample, image=resize_to(sample.image, size), boxes=sample.boxes * factor, masks=masks, reduced=1)


@TRANSFORMS.register_module()
class Resize(SampleTransform):
    """Resize so that the short side is ``short`` and the long side at most ``long``; the aspect ratio is kept.

    Args:
        short: pixels, or several sizes to choose from (multi-scale training).
        long: pixels.
        mode: "value" draws one of ``short``, "range" any size from the first to the last.
        draw: draw a size per "image" or per "batch". The latter saves padding and time.
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
        if max(*self.short, long) > LARGEST_SIDE:
            raise ValueError(f"short={short} and long={long} must be at most {LARGEST_SIDE}")
        if mode == "range" and self.short[0] > self.short[-1]:
            raise ValueError(f"short={short} must be in ascending order for mode='range'")
        self.long, self.mode, self.draw = long, mode, draw

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Resize the sample."""
        generator = draws.batch if self.draw == "batch" else draws.image
        if self.mode == "range":
            short = int(generator.integers(self.short[0], self.short[-1] + 1))
        else:
            short = self.short[int(generator.integers(len(self.short)))]
        return resized(sample, fitted_size(sample.size, short, self.long))


class _Flip(SampleTransform):
    """Flip along an axis of the image (0: rows, 1: columns) with probability ``p``."""

    axis: int

    def __init__(self, p: float = 0.5) -> None:
        self.p = p
        require_ranges(self, p="[0, 1]")

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Flip the sample, or return it unchanged."""
        if draws.image.random() >= self.p:
            return sample
        low, high = 1 - self.axis, 3 - self.axis  # columns of the boxes
        boxes = sample.boxes.copy()
        boxes[:, [low, high]] = sample.image.shape[self.axis] - sample.boxes[:, [high, low]]
        masks = None if sample.masks is None else np.ascontiguousarray(np.flip(sample.masks, self.axis + 1))
        return replace(sample, image=cast(ImageArray, cv2.flip(sample.image, self.axis)), boxes=boxes, masks=masks)


@TRANSFORMS.register_module()
class HorizontalFlip(_Flip):
    """Flip left and right with probability ``p``."""

    axis = 1


@TRANSFORMS.register_module()
class VerticalFlip(_Flip):
    """Flip top and bottom with probability ``p``, for images without a fixed orientation such as microscopy."""

    axis = 0


def _step(section: Any, path: str) -> SampleTransform | CustomTransform:
    """Return the transform of a config section, or wrap a transform object."""
    if isinstance(section, SampleTransform):
        return section
    if not isinstance(section, Mapping):
        return CustomTransform(section, f"{path}: transform {getattr(section, '__name__', type(section).__name__)}")
    built = build(TRANSFORMS, section, path)
    who = f"{path}: transform {section['type']}"
    return built if isinstance(built, SampleTransform) else CustomTransform(built, who)


class Pipeline:
    """Transforms in sequence.

    Args:
        transforms: config dicts (``type`` names the transform, the other keys are its arguments), or transform objects.
    """

    def __init__(self, transforms: Transforms) -> None:
        self.steps = [_step(section, f"transforms.{number}") for number, section in enumerate(transforms)]

    @property
    def bounds(self) -> tuple[int, int] | None:
        """Largest (short side, long side) of a first ``Resize``; None if the first transform is another one."""
        first = self.steps[0] if self.steps else None
        return (max(first.short), first.long) if isinstance(first, Resize) else None

    @property
    def extra(self) -> int:
        """Largest number of further samples that the transforms need for an image."""
        return sum(step.extra for step in self.steps)

    def _needed(self, seed: Seed) -> list[int]:
        """Return the number of further samples that each transform takes for an image."""
        if not self.extra:
            return [0] * len(self.steps)
        drawn = np.random.default_rng([*seed, USE_STREAM]).random(len(self.steps))
        return [step.extra if chance < step.share else 0 for step, chance in zip(self.steps, drawn, strict=True)]

    def draw_extra(self, seed: Seed, count: int) -> list[int]:
        """Draw the numbers of the further samples of an image out of ``count``; at most :attr:`extra`."""
        if not (needed := sum(self._needed(seed))):
            return []
        random = np.random.default_rng([*seed, CHOICE_STREAM])
        return [int(number) for number in random.integers(count, size=needed)]

    def __call__(
        self, sample: LabeledSample, seed: Seed, batch_seed: Seed, others: Sequence[LabeledSample] = ()
    ) -> LabeledSample:
        """Run all transforms; the output is a pure function of the samples and the two seeds.

        Args:
            sample: the sample.
            seed: seed of the image.
            batch_seed: seed of its batch.
            others: the further samples of :meth:`draw_extra`. Each goes through the transforms before the one that
                needs it.
        """
        seeds = [list(seed), *([*seed, OTHERS_STREAM, number] for number in range(len(others)))]
        draws = [Draws(np.random.default_rng(one), np.random.default_rng(list(batch_seed))) for one in seeds]
        samples = [sample, *others]
        for step, needed in zip(self.steps, self._needed(seed), strict=True):
            if needed:
                combine = cast(Callable[..., LabeledSample], step)
                samples[: 1 + needed] = [combine(samples[0], draws[0], samples[1 : 1 + needed])]
                del draws[1 : 1 + needed]
            elif not step.extra:
                samples = [step(one, draw) for one, draw in zip(samples, draws, strict=True)]
        return samples[0]
