"""Another backbone in a recipe: the neck and the head are fitted to the levels it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from tldet.errors import ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.models.meta_tensors import without_storage
from tldet.models.zoo import Found, find_backbone

PER_LEVEL = ("sizes", "points")  # keys of a head that hold one entry a level
BETWEEN_LEVELS = ("borders",)  # keys that hold one entry between every two levels
COUNTS = ("levels",)  # keys that count levels, finest first
_TRIAL = (64, 96)  # height and width of the image on which shapes are tried


def replace_backbone(model: dict[str, Any], name: str, *, scratch: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The ``model`` section of a recipe with the backbone ``name`` in the place of its own.

    The levels stay those of the recipe, as far as the new backbone has them. Levels it lacks go, and what the head
    says of them (anchor sizes, borders, levels that regions are pooled from) goes with them. A plain vision
    transformer gets a simple feature pyramid with all of the recipe's levels for a neck.

    Args:
        model: a recipe's ``model`` section; left as it is.
        name: see :func:`~tldet.models.zoo.find_backbone`.
        scratch: start from random weights.

    Returns:
        The new section, and a line for each thing that was chosen or adapted.

    Raises:
        ConfigError: the name is unknown, or the backbone cannot serve this recipe.
    """
    found = find_backbone(name)
    old = cast(Any, without_storage(lambda: build_detector(model)))
    wanted = tuple(old.backbone.strides)
    kept = wanted if found.plain else tuple(stride for stride in wanted if stride in found.strides)
    if not kept:
        raise ConfigError(
            f"backbone {name!r} has levels of stride {list(found.strides)}, the recipe takes {list(wanted)}"
        )
    gap = [stride for stride in wanted if kept[0] < stride < kept[-1] and stride not in kept]
    if gap:
        raise ConfigError(f"backbone {name!r} has levels of stride {list(kept)} but lacks {gap} in between")
    new = {**model, "backbone": found.config(kept, scratch=scratch)}
    new["preprocess"] = {"mean": list(found.mean), "std": list(found.std)}
    if found.plain:
        out = {"out_channels": old.neck.channels, "out_strides": list(old.neck.strides)}
        new["neck"] = {"type": "SimpleFeaturePyramid", **out}
        strides = tuple(old.neck.strides)
    else:
        added = len(old.neck.strides) - len(wanted)
        strides = (*kept, *(kept[-1] * 2 ** (i + 1) for i in range(added)))
    new["head"], changes = fit_head(model["head"], tuple(old.neck.strides), strides)
    _try(new, name)
    return new, [_weights_line(found, name, scratch), _pyramid_line(found, wanted, strides), *changes]


def fit_head(head: dict[str, Any], old: Sequence[int], new: Sequence[int]) -> tuple[dict[str, Any], list[str]]:
    """A head's section for the strides ``new``, which are neighbors among ``old``; and what was changed.

    Every level keeps its own entry; those of the levels that are gone go too.
    """
    first, last = old.index(new[0]), old.index(new[-1]) + 1
    fitted, changes = dict(head), []
    for key, value in head.items():
        if isinstance(value, dict):
            fitted[key], inner = fit_head(value, old, new)
            changes += [f"{key}.{line}" for line in inner]
        elif key in PER_LEVEL and len(value) == len(old):
            fitted[key] = value[first:last]
        elif key in BETWEEN_LEVELS and len(value) == len(old) - 1:
            fitted[key] = value[first : last - 1]
        elif key in COUNTS and isinstance(value, int):
            fitted[key] = max(min(value, last) - first, 1)
        if not isinstance(value, dict) and fitted[key] != value:
            changes.append(f"{key} {value} -> {fitted[key]}: the pyramid has no other levels")
    return fitted, changes


def _try(model: dict[str, Any], name: str) -> None:
    """Every map must have the channels and the size that the backbone declares; tried without weights."""
    try:
        detector: Any = without_storage(lambda: build_detector(model)).eval()
        levels = detector.backbone(torch.zeros(1, 3, *_TRIAL, device="meta"))
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        why = " ".join(str(error).split())[:120]
        raise ConfigError(f"backbone {name!r} cannot take images of any size: {why}") from None
    declared = [(c, -(-_TRIAL[0] // s), -(-_TRIAL[1] // s)) for c, s in zip(*_outline(detector), strict=True)]
    given = [tuple(level.shape[1:]) for level in levels]
    if given != declared:
        raise ConfigError(f"backbone {name!r}: gives maps of {given}, not {declared}, on an image of {_TRIAL}")


def _outline(detector: Detector) -> tuple[tuple[int, ...], tuple[int, ...]]:
    backbone: Any = detector.backbone
    return backbone.channels, backbone.strides


def _weights_line(found: Found, name: str, scratch: bool) -> str:
    if scratch or found.weights is None:
        none = f"{found.name} has none" if found.registered else f"timm has no trained ones for {name}"
        why = "as asked" if scratch else none
        return f"backbone {found.name}: random weights, {why}; all of it learns"
    return f"backbone {found.name}: weights {found.weights}, mean {found.mean}, std {found.std}"


def _pyramid_line(found: Found, wanted: Sequence[int], strides: Sequence[int]) -> str:
    if found.plain:
        return f"simple feature pyramid of strides {list(strides)} from the last map of {found.name}"
    missing = [stride for stride in wanted if stride not in found.strides]
    lacks = f"; {found.name} has no level of stride {', '.join(map(str, missing))}" if missing else ""
    return f"pyramid of strides {list(strides)}{lacks}"
