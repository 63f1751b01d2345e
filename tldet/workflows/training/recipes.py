"""Configs and recipes by name or file, and the transforms of a recipe with the input size of a dataset filled in.

Configs of MMDetection are recognized. Layer-wise decay replaces the learning-rate factor of the backbone.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tldet.config import Config, find, override, read_config
from tldet.data.dataset import CocoDataset
from tldet.errors import ConfigError
from tldet.plugins import import_named, lookup
from tldet.registry import DATASETS, TRANSFORMS
from tldet.transfer.interop.mmdet_files import advice, is_mmdet
from tldet.workflows.training.augmentation import Augment, Steps, parse_transforms

log = logging.getLogger(__name__)
DECAY, FACTOR = "optimizer.layer_decay", "optimizer.backbone_lr"
_NEEDED = ("model.head", "model.backbone", "schedule", "optimizer")  # sections of a recipe
OPTIONAL = ("data", "data.loader", "training", "freeze", "class_match")  # optional sections
GRID = 32  # pixels; input sizes are multiples of this
RESIZING = ("resize", "maxsize")  # in names of transforms that resize images


def load_config(name: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Load a config by name or file and apply options.

    Raises:
        ConfigError: there is no such config, it is wrong, or it is an MMDetection config; the message then names
            the nearest recipe.
    """
    path = find(name)
    try:
        config = read_config(path, options)
    except ConfigError:
        if text := advice(path):
            raise ConfigError(text) from None
        raise
    if is_mmdet(config.data) and (text := advice(path)):
        raise ConfigError(text)
    import_named(config.get("imports"), config.origin("imports"))
    return config


def load_recipe(model: str) -> Config:
    """Load the recipe of ``--model``.

    Raises:
        ConfigError: there is no such recipe, or a section is missing or has another type.
    """
    recipe = load_config(model)
    for key in _NEEDED + OPTIONAL:
        section = recipe.get(key)
        if not section and key in _NEEDED:
            raise ConfigError(
                f"--model {model}: is not a recipe of a detector (no {key}); see `tldet models --detectors`"
            )
        if section is not None and not isinstance(section, dict):
            raise ConfigError(f"{key}: must be a section (a dict), not {section!r} (in {recipe.origin(key)})")
    return recipe


def default_transforms(short: int, long: int) -> tuple[Steps, Steps]:
    """Return the transforms of training and of evaluation for recipes that specify none."""
    several = [_on_grid(short * factor) for factor in (0.9, 1.0, 1.1)]
    train: Steps = [
        {"type": "Resize", "short": sorted(set(several)), "long": _on_grid(long * 1.1), "draw": "batch"},
        {"type": "HorizontalFlip", "p": 0.5},
        {"type": "ColorJitter", "p": 0.3},
    ]
    return train, [{"type": "Resize", "short": short, "long": long}]


def split_transforms(recipe: Config, short: int, long: int, augment: Augment = ()) -> dict[str, Steps]:
    """Return the transforms of each split of a recipe, with the input size filled in.

    Multi-scale sizes keep their ratios to the size of evaluation.

    Args:
        recipe: the recipe; splits without transforms get :func:`default_transforms`.
        short: short side of the images, pixels.
        long: limit of the long side, pixels.
        augment: training transforms in place of the recipe's, or a preset; images are resized first.

    Raises:
        ConfigError: ``augment`` cannot be read.
    """
    train, other = default_transforms(short, long)
    own = recipe.get("data.train.transforms")
    if own is not None:
        train = [_sized(step, _reference(recipe), (short, long)) for step in own]
    if augment:
        listed = parse_transforms(augment, masks=recipe.get("model.head.mask") is not None)
        resize = next((step for step in train if is_resize(step)), default_transforms(short, long)[0][0])
        train = listed if any(is_resize(step) for step in listed) else [resize, *listed]
    found = {"train": train}
    for name in ("val", "test"):
        steps = recipe.get(f"data.{name}.transforms")
        found[name] = other if steps is None else [_sized(step, _size_of(step), (short, long)) for step in steps]
    return found


def _reference(recipe: Config) -> tuple[int, int]:
    """Return (short, long) of evaluation in the recipe, or the middle size of training."""
    for name in ("val", "test", "train"):
        for step in recipe.get(f"data.{name}.transforms") or ():
            if step.get("type") == "Resize":
                return _size_of(step)
    return _size_of({})


def _size_of(step: Mapping[str, Any]) -> tuple[int, int]:
    short = step.get("short", 800)
    sides = sorted(short) if isinstance(short, (list, tuple)) else [short]
    return sides[len(sides) // 2], step.get("long", 1333)


def _sized(step: Mapping[str, Any], reference: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Return a transform for another input size: a ``Resize`` is scaled, others are unchanged."""
    if step.get("type") != "Resize":
        return dict(step)
    short, long = step.get("short", 800), step.get("long", 1333)
    factor = size[0] / reference[0]
    sides = [_on_grid(one * factor) for one in (short if isinstance(short, (list, tuple)) else [short])]
    several = sides if step.get("mode") == "range" else list(dict.fromkeys(sides))
    filled = several if isinstance(short, (list, tuple)) else sides[0]
    limit = size[1] if long == reference[1] else _on_grid(long * size[1] / reference[1])
    return {**step, "short": filled, "long": limit}


def _on_grid(pixels: float) -> int:
    return max(GRID, round(pixels / GRID) * GRID)


def is_resize(step: Mapping[str, Any]) -> bool:
    """Return True for a transform that resizes images, by its name or its attribute ``resizes``."""
    name = str(step.get("type"))
    TRANSFORMS.import_from_location()
    registered = TRANSFORMS.module_dict.get(name)
    return any(word in name.lower() for word in RESIZING) or bool(getattr(registered, "resizes", False))


def foreign_resize(steps: Steps) -> str | None:
    """Return the name of the first resizing transform if it is not ``Resize``."""
    name = next((str(step["type"]) for step in steps if is_resize(step)), "Resize")
    return None if name == "Resize" else name


def largest_size(steps: Steps, chosen: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (short, long) of the ``Resize`` transform, or the chosen size without one."""
    for step in steps:
        if step["type"] == "Resize":
            short, long = step.get("short", 800), step.get("long", 1333)
            return max(short) if isinstance(short, (list, tuple)) else short, long
    return chosen


def require_resize(config: Config, splits: Sequence[str]) -> None:
    """Reject transforms without resizing, for which the chosen input size would have no effect.

    Raises:
        ConfigError: no transform of a split resizes the images.
    """
    for split in splits:
        key = f"data.{split}.transforms"
        steps = config.get(key) or ()
        if not config.get(f"data.{split}") or not isinstance(steps, (list, tuple)):
            continue
        if not any(is_resize(step) for step in steps if isinstance(step, dict)):
            raise ConfigError(
                f"{key}: no transform resizes the images (in {config.origin(key)}); put dict(type='Resize', short=..., "
                "long=...) first, or use --augment, which keeps the chosen input size"
            )


def has_own_data(recipe: Config) -> bool:
    """Return True if a recipe trains on an external dataset class."""
    name = recipe.get("data.train.type")
    target = lookup(DATASETS, name) if isinstance(name, str) else None
    return name is not None and not (inspect.isclass(target) and issubclass(target, CocoDataset))


def without_factor(config: Config, given: Mapping[str, Any], *, chosen: bool = False) -> Config:
    """Return a config in which layer-wise decay replaces ``backbone_lr``, as in ViTDet (Li et al. 2022).

    A recipe multiplies the learning rate of the backbone by a factor for all layers. If an option turns on layer-wise
    decay, the factor becomes 1 unless an option sets it too. A file that contains both keys is used as it is.

    Args:
        config: the config with all options.
        given: dotted keys and values of the user's config options.
        chosen: the run has turned on layer-wise decay by other means than ``given``.
    """
    factor, decay = config.get(FACTOR, 1.0), config.get(DECAY, 1.0)
    if decay == 1 or factor == 1 or _sets(given, FACTOR) or not (chosen or _sets(given, DECAY)):
        return config
    log.info("%s = 1 instead of %s, because of %s = %s (ViTDet); set it to use both", FACTOR, factor, DECAY, decay)
    return override(config, {FACTOR: 1.0})


def _sets(given: Mapping[str, Any], key: str) -> bool:
    """Return True if an option sets a key, by itself or within its section."""
    section, _, name = key.rpartition(".")
    values = given.get(section)
    return key in given or (isinstance(values, Mapping) and name in values)
