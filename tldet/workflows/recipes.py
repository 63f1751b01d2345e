"""Configs and recipes by name or file; configs of MMDetection are recognized."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tldet.config import Config, find, load
from tldet.errors import ConfigError
from tldet.workflows.mmdet_files import advice, is_mmdet

NEEDED = ("model.head", "model.backbone", "schedule", "optimizer")  # sections of a recipe
OPTIONAL = ("data", "data.loader", "training", "freeze", "class_match")  # those that it may leave out


def load_config(name: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Load a config by name or file, with ``options`` on top.

    Raises:
        ConfigError: there is no such config, it is wrong, or it is one of MMDetection; the message then names the
            nearest recipe.
    """
    path = find(name)
    try:
        config = load(path, options)
    except ConfigError:
        if text := advice(path):
            raise ConfigError(text) from None
        raise
    if is_mmdet(config.data) and (text := advice(path)):
        raise ConfigError(text)
    return config


def load_recipe(model: str) -> Config:
    """Load the recipe that ``--model`` names, whose data, length and options can be filled in.

    Raises:
        ConfigError: there is no recipe of that name, or a section is missing or no section.
    """
    recipe = load_config(model)
    for key in NEEDED + OPTIONAL:
        section = recipe.get(key)
        if not section and key in NEEDED:
            raise ConfigError(
                f"--model {model}: describes no detector to train, it has no {key}; see `tldet models --detectors`"
            )
        if section is not None and not isinstance(section, dict):
            raise ConfigError(f"{key}: must be a section (a dict), not {section!r} (in {recipe.origin(key)})")
    return recipe
