"""Recipes with an external dataset class instead of COCO JSON files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tldet.config import Config, override
from tldet.config.check import parameters, takes_any
from tldet.data.index import AnnotationIndex
from tldet.errors import ConfigError
from tldet.plugins import lookup
from tldet.registry import DATASETS
from tldet.workflows.options import SPLITS
from tldet.workflows.training.datasets import build_dataset

# Command-line options, with the splits and the parameter of the dataset that they set.
_PARAMETERS = {
    "--data": (SPLITS, "root"),
    "--train": (("train",), "annotations"),
    "--val": (("val",), "annotations"),
    "--images": (SPLITS, "images"),
}


def with_own_data(recipe: Config, given: Mapping[str, str | Path | None], options: Mapping[str, Any]) -> Config:
    """Return a recipe with user-specified paths and options of its dataset filled in.

    Args:
        recipe: the recipe.
        given: paths by option, see :data:`_PARAMETERS`.
        options: config options; those of ``data`` are used.

    Raises:
        ConfigError: the dataset does not take a path.
    """
    paths: dict[str, Any] = {}
    for option, path in given.items():
        if path is not None:
            paths |= _paths(recipe, option, str(path))
    return override(recipe, {**paths, **{key: value for key, value in options.items() if key.startswith("data.")}})


def _paths(recipe: Config, option: str, path: str) -> dict[str, str]:
    splits, parameter = _PARAMETERS[option]
    found = {}
    for split in splits:
        name = recipe.get(f"data.{split}.type")
        target = None if name is None else lookup(DATASETS, name)
        if target is not None and (parameter in parameters(target) or takes_any(target)):
            found[f"data.{split}.{parameter}"] = path
    if not found:
        kind = recipe.get(f"data.{splits[0]}.type")
        raise ConfigError(
            f"{option} {path}: dataset {kind} of the recipe takes no {parameter}; set data.{splits[0]} in the recipe, "
            f"or single keys with --cfg-options data.{splits[0]}.KEY=VALUE"
        )
    return found


def own_index(recipe: Config, seed: int) -> AnnotationIndex:
    """Build the training dataset of a recipe and return its index.

    Raises:
        TldetError: a key or an annotation is wrong.
    """
    section = {key: value for key, value in recipe["data"]["train"].items() if key != "transforms"}
    return build_dataset(section, seed, path="data.train").index
