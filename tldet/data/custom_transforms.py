"""Transforms from outside tldet: classes and functions ``(image, target, rng) -> image, target``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tldet.data.sample_checks import ignore_flags, sample_problem
from tldet.errors import ConfigError, DataError
from tldet.plugins import ADAPTERS
from tldet.structures.target import Target

if TYPE_CHECKING:
    from tldet.data.transforms import Draws, LabeledSample

ARGUMENTS = ("image", "target", "rng")  # of a transform
OTHERS = "others"  # keyword argument of a transform that declares ``extra``


class CustomTransform:
    """A transform ``(image, target, rng) -> image, target`` whose output is checked.

    The image is (H, W, 3) uint8 RGB, the target a :class:`~tldet.structures.target.Target` on the CPU. The transform
    may drop and add objects; it must change boxes, labels, ``ignore`` and masks together.

    Attributes:
        extra: number of further samples that the transform needs. They are passed as the keyword argument ``others``, a
            list of (image, target) pairs.
        share: probability with which they are passed.

    Args:
        transform: the transform.
        name: name of the transform in messages.

    Raises:
        ConfigError: the transform has another signature, or its ``extra`` is not a number of samples.
    """

    share = 1.0

    def __init__(self, transform: Any, name: str) -> None:
        self.transform, self.name = transform, name
        self.extra = getattr(transform, "extra", 0)
        if not isinstance(self.extra, int) or isinstance(self.extra, bool) or self.extra < 0:
            raise ConfigError(f"{name}: extra must be a number of samples, 0 or more, not {self.extra!r}")
        further: dict[str, Any] = {OTHERS: []} if self.extra else {}
        try:
            inspect.signature(transform).bind(*ARGUMENTS, **further)
        except (TypeError, ValueError):
            arguments = ", ".join((*ARGUMENTS, *further))
            raise ConfigError(f"{name}: must be callable as ({arguments}) and return image, target") from None

    def __call__(self, sample: LabeledSample, draws: Draws, others: Sequence[LabeledSample] = ()) -> LabeledSample:
        """Run the transform.

        Raises:
            DataError: the transform does not return a valid image and target.
        """
        target = sample.target(copy=True)  # a transform may write into it
        pairs = [(other.image, other.target(copy=True)) for other in others]
        returned = self.transform(sample.image, target, draws.image, **({OTHERS: pairs} if self.extra else {}))
        if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], Target):
            raise DataError(f"{self.name}: must return image, target, not {type(returned).__name__}")
        image, changed = returned
        if problem := sample_problem(image, changed, masks=sample.masks is not None):
            raise DataError(f"{self.name}: {problem} (image {sample.image_id})")
        kept = changed.labels is target.labels and len(changed) == len(sample.rows)
        return replace(
            sample,
            image=np.ascontiguousarray(image),
            boxes=np.asarray(changed.boxes, np.float32),
            rows=sample.rows if kept else np.full(len(changed), -1),
            ignore=ignore_flags(changed),
            masks=None if changed.masks is None else np.asarray(changed.masks, np.uint8),
            reduced=1,
            labels=None if sample.labels is None else np.asarray(changed.labels, np.int64),
        )


def as_factory(target: Any) -> Any:
    """Convert a function ``(image, target, rng, ...)`` to a factory whose parameters are the further ones."""
    if not inspect.isfunction(target):
        return target
    parameters = list(inspect.signature(target).parameters.values())
    if tuple(p.name for p in parameters[:3]) != ARGUMENTS:
        return target
    return _factory(target, [p for p in parameters[3:] if p.name != OTHERS])


def _factory(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    def make(**values: Any) -> Any:
        transform = partial(function, **values)
        vars(transform).update(vars(function))  # attributes such as ``extra``
        return transform

    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    make.__annotations__ = {p.name: function.__annotations__.get(p.name, Any) for p in parameters}
    make.__module__ = function.__module__
    return make


ADAPTERS["transform"] = as_factory
