"""Steps of an augmentation pipeline: what passes through it, and transforms from outside tldet as steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tldet.errors import ConfigError, DataError
from tldet.plugins import ADAPTERS
from tldet.structures.image import ImageArray
from tldet.structures.target import Target

ARGUMENTS = ("image", "target", "rng")  # of a transform
ROUNDING = 0.1  # pixels by which resized boxes may exceed their image


@dataclass
class LabeledSample:
    """An image and its objects.

    Attributes:
        image: (H, W, 3) uint8.
        boxes: (N, 4) xyxy.
        rows: (N,) which row of the data set each box is; -1 for boxes that a transform has added.
        ignore: (N,) bool, true for what is neither object nor background.
        masks: (N, H, W) uint8, or None.
        reduced: the image was read at one nth of the size that its boxes and masks are in (see
            :func:`~tldet.data.images.read_reduced`); a first step ``Resize`` brings them together.
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

    def labels_of(self, rows: Any) -> NDArray[np.int64] | None:
        """Return the labels of some rows, given by index or as a mask."""
        return None if self.labels is None else self.labels[rows]


class Draws(NamedTuple):
    """Where random numbers come from: a generator for this image, and one that is the same for its whole batch."""

    image: np.random.Generator
    batch: np.random.Generator


class Step:
    """Base class of tldet's own steps, which take a sample and generators."""

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Transform a sample."""
        raise NotImplementedError


class CustomStep(Step):
    """A transform ``(image, target, rng) -> image, target`` as a step.

    The image is (H, W, 3) uint8 RGB, the target a :class:`~tldet.structures.target.Target` on the CPU. The transform
    may drop and add objects; it must change boxes, labels, ``ignore`` and masks together.

    Args:
        transform: the transform.
        name: its name in messages.

    Raises:
        ConfigError: it cannot be called with three arguments.
    """

    def __init__(self, transform: Any, name: str) -> None:
        self.transform, self.name = transform, name
        try:
            inspect.signature(transform).bind(*ARGUMENTS)
        except (TypeError, ValueError):
            raise ConfigError(f"{name}: must be callable as (image, target, rng) and return image, target") from None

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Run the transform and check what it returns.

        Raises:
            DataError: it does not return an image and a target that fit each other.
        """
        labels = np.zeros(len(sample.boxes), np.int64) if sample.labels is None else sample.labels
        target = Target(
            boxes=_tensor(sample.boxes, np.float32),
            labels=_tensor(labels, np.int64),
            ignore=_tensor(sample.ignore, np.bool_),
            image_id=sample.image_id,
            masks=None if sample.masks is None else _tensor(sample.masks, np.uint8),
        )
        returned = self.transform(sample.image, target, draws.image)
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], Target):
            raise DataError(f"{self.name}: must return image, target, not {type(returned).__name__}")
        image, changed = returned
        if problem := sample_problem(image, changed, masks=sample.masks is not None):
            raise DataError(f"{self.name}: {problem} (image {sample.image_id})")
        kept = changed.labels is target.labels and len(changed) == len(sample.rows)
        return LabeledSample(
            image=np.ascontiguousarray(image),
            boxes=np.asarray(changed.boxes, np.float32),
            rows=sample.rows if kept else np.full(len(changed), -1),
            ignore=_ignored(changed),
            masks=None if changed.masks is None else np.asarray(changed.masks, np.uint8),
            labels=None if sample.labels is None else np.asarray(changed.labels, np.int64),
            image_id=sample.image_id,
        )


def _tensor(values: NDArray[Any], dtype: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(values, dtype))  # a copy: a transform may write into it


def _ignored(target: Target) -> NDArray[np.bool_]:
    """Return the ignore flags; a target may leave them out, which means none."""
    if not len(target.ignore):
        return np.zeros(len(target), np.bool_)
    return np.asarray(target.ignore, np.bool_)


def sample_problem(image: Any, target: Target, *, masks: bool) -> str | None:
    """Return what is wrong with an image and its target; None if they are sound.

    Args:
        image: should be (H, W, 3) uint8.
        target: boxes must lie in the image and have an extent; labels, ``ignore`` and masks must have their length.
        masks: masks are needed.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        return f"the image must be an array (H, W, 3) of uint8, not {found}"
    return problem_with_target(target, (image.shape[0], image.shape[1]), masks=masks)


def problem_with_target(target: Target, size: tuple[int, int], *, masks: bool) -> str | None:
    """Return what is wrong with the target of an image of ``size`` (height, width); None if it is sound."""
    for name in ("boxes", "labels", "ignore"):
        if not isinstance(getattr(target, name), torch.Tensor):
            return f"target.{name} must be a torch tensor, not {type(getattr(target, name)).__name__}"
    count = len(target.boxes)
    if tuple(target.boxes.shape) != (count, 4):
        return f"target.boxes must be (N, 4), not {tuple(target.boxes.shape)}"
    lengths = {"labels": len(target.labels), **({"ignore": len(target.ignore)} if len(target.ignore) else {})}
    if masks or target.masks is not None:
        if target.masks is None:
            return "target.masks is None, but the model needs masks"
        if tuple(target.masks.shape) != (count, *size):
            return f"target.masks must be {(count, *size)}, not {tuple(target.masks.shape)}"
    for name, length in lengths.items():
        if length != count:
            return f"target.{name} has {length} entries for {count} boxes"
    limit = torch.tensor([size[1], size[0]], dtype=target.boxes.dtype)
    low, high = target.boxes[:, :2], target.boxes[:, 2:]
    sound = ((high > low) & (low >= -ROUNDING) & (high <= limit + ROUNDING)).all(1)  # false for NaN
    if bool(sound.all()):
        return None
    row = int((~sound).nonzero()[0])
    box = [round(value, 2) for value in target.boxes[row].tolist()]
    where = f"the image of {size[1]} x {size[0]} pixels"
    return f"box {row} {box} must have an extent and lie within {where} (x0, y0, x1, y1)"


def as_factory(target: Any) -> Any:
    """Return a plain function ``(image, target, rng, ...)`` as a factory whose arguments are the further ones."""
    if not inspect.isfunction(target):
        return target
    parameters = list(inspect.signature(target).parameters.values())
    if tuple(p.name for p in parameters[:3]) != ARGUMENTS:
        return target
    return _factory(target, parameters[3:])


def _factory(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    def make(**values: Any) -> Any:
        return partial(function, **values)

    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    make.__annotations__ = {p.name: function.__annotations__.get(p.name, Any) for p in parameters}
    make.__module__ = function.__module__
    return make


ADAPTERS["transform"] = as_factory
