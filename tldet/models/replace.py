"""Replacement of the backbone of a recipe, with neck and head adapted to its levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from tldet.errors import ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.models.meta_tensors import without_storage
from tldet.models.zoo import BackboneInfo, find_backbone

_PER_LEVEL = ("sizes", "points")  # keys of a head with one entry per level
_BETWEEN_LEVELS = ("borders",)  # keys with one entry for each pair of consecutive levels
COUNTS = ("levels",)  # keys with a number of levels, from the finest
_TRIAL = (64, 96)  # height and width of the image for checking shapes


def replace_backbone(model: dict[str, Any], name: str, *, scratch: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Replace the backbone in the ``model`` section of a recipe.

    Levels that the new backbone lacks are removed, together with their settings in the head (anchor sizes, borders,
    levels for pooling regions). A plain vision transformer gets a simple feature pyramid with all levels of the recipe.

    Args:
        model: ``model`` section of a recipe, which is not changed.
        name: see :func:`~tldet.models.zoo.find_backbone`.
        scratch: use random initial weights.

    Returns:
        The new section, and a line for each choice and change.

    Raises:
        ConfigError: the name is unknown, or the backbone does not fit the recipe.
    """
    found = find_backbone(name)
    old = cast(Any, without_storage(lambda: build_detector(model)))
    strides_before = tuple(old.backbone.strides)
    kept = strides_before if found.plain else tuple(stride for stride in strides_before if stride in found.strides)
    if not kept:
        raise ConfigError(
            f"backbone {name!r} has levels of stride {list(found.strides)}, the recipe needs {list(strides_before)}"
        )
    gap = [stride for stride in strides_before if kept[0] < stride < kept[-1] and stride not in kept]
    if gap:
        raise ConfigError(f"backbone {name!r} has levels of stride {list(kept)} but lacks {gap} in between")
    new = {**model, "backbone": found.config(kept, scratch=scratch)}
    new["preprocess"] = {"mean": list(found.mean), "std": list(found.std)}
    if found.plain:
        out = {"out_channels": old.neck.channels, "out_strides": list(old.neck.strides)}
        new["neck"] = {"type": "SimpleFeaturePyramid", **out}
        strides = tuple(old.neck.strides)
    else:
        added = len(old.neck.strides) - len(strides_before)
        strides = (*kept, *(kept[-1] * 2 ** (i + 1) for i in range(added)))
    new["head"], changes = fit_head(model["head"], tuple(old.neck.strides), strides)
    _check_shapes(new, name)
    return new, [_weights_line(found, name, scratch), _pyramid_line(found, strides_before, strides), *changes]


def fit_head(head: dict[str, Any], old: Sequence[int], new: Sequence[int]) -> tuple[dict[str, Any], list[str]]:
    """Adapt the section of a head to the strides ``new``, a consecutive part of ``old``; also return the changes.

    Entries of removed levels are removed.
    """
    first, last = old.index(new[0]), old.index(new[-1]) + 1
    fitted, changes = dict(head), []
    for key, value in head.items():
        if isinstance(value, dict):
            fitted[key], inner = fit_head(value, old, new)
            changes += [f"{key}.{line}" for line in inner]
        elif key in _PER_LEVEL and len(value) == len(old):
            fitted[key] = value[first:last]
        elif key in _BETWEEN_LEVELS and len(value) == len(old) - 1:
            fitted[key] = value[first : last - 1]
        elif key in COUNTS and isinstance(value, int):
            fitted[key] = max(min(value, last) - first, 1)
        if not isinstance(value, dict) and fitted[key] != value:
            changes.append(f"{key} {value} -> {fitted[key]} (levels of the pyramid)")
    return fitted, changes


def _check_shapes(model: dict[str, Any], name: str) -> None:
    """Check channels and sizes of the feature maps against those that the backbone declares, without weights.

    Raises:
        ConfigError: they differ, or the backbone does not support the size of the image.
    """
    try:
        detector: Any = without_storage(lambda: build_detector(model)).eval()
        levels = detector.backbone(torch.zeros(1, 3, *_TRIAL, device="meta"))
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"backbone {name!r} does not support images of any size: {reason}") from None
    declared = [(c, -(-_TRIAL[0] // s), -(-_TRIAL[1] // s)) for c, s in zip(*_outline(detector), strict=True)]
    found = [tuple(level.shape[1:]) for level in levels]
    if found != declared:
        raise ConfigError(f"backbone {name!r}: maps of an image of {_TRIAL} are {found}, should be {declared}")


def _outline(detector: Detector) -> tuple[tuple[int, ...], tuple[int, ...]]:
    backbone: Any = detector.backbone
    return backbone.channels, backbone.strides


def _weights_line(found: BackboneInfo, name: str, scratch: bool) -> str:
    if scratch or found.weights is None:
        missing = f"{found.name} has none" if found.registered else f"timm has none for {name}"
        reason = "user-specified" if scratch else f"no pretrained weights: {missing}"
        return f"backbone {found.name}: random initial weights, all layers trainable ({reason})"
    return f"backbone {found.name}: initial weights {found.weights}, mean {found.mean}, std {found.std}"


def _pyramid_line(found: BackboneInfo, before: Sequence[int], strides: Sequence[int]) -> str:
    if found.plain:
        return f"simple feature pyramid of strides {list(strides)} on the last map of {found.name}"
    missing = [stride for stride in before if stride not in found.strides]
    lacks = f"; {found.name} has no level of stride {', '.join(map(str, missing))}" if missing else ""
    return f"pyramid of strides {list(strides)}{lacks}"
