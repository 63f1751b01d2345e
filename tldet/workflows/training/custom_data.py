"""Recipes with user datasets instead of COCO JSON files, and conversion of these datasets to COCO JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.config import Config, override
from tldet.config.check import parameters, takes_any
from tldet.data.custom_dataset import CustomDataset
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.relabeled import LOADER_KEYS, source_name, write_annotations
from tldet.errors import ConfigError
from tldet.plugins import lookup
from tldet.registry import DATASETS
from tldet.workflows.options import SPLITS
from tldet.workflows.training.datasets import build_dataset
from tldet.workflows.training.recipes import has_own_data

# Command-line options, with the splits and the parameter of the dataset that they set.
_PARAMETERS = {
    "--data": (SPLITS, "root"),
    "--train": (("train",), "annotations"),
    "--val": (("val",), "annotations"),
    "--images": (SPLITS, "images"),
    "--replay": (("train",), "annotations"),
    "--replay-images": (("train",), "images"),
    "--old-val": (("val",), "annotations"),
    "--old-val-images": (("val",), "images"),
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


def user_recipe(config: Mapping[str, Any], source: str) -> Config | None:
    """Return the user datasets of a run as a config with ``data.train`` and ``data.val``; None for COCO JSON.

    It has ``data.test`` too if the run has a test split.

    Args:
        config: config of the run; that of an extended detector names the user datasets under ``sources``.
        source: origin of the config, for messages.
    """
    data = config.get("data") or {}
    train, val = (_first_source(data.get(name) or {}) for name in ("train", "val"))
    recipe = Config(
        {"data": {"train": train, "val": val or _first_source(data.get("test") or {}) or train}}, {}, source
    )
    return recipe if has_own_data(recipe) else None


def _first_source(section: Mapping[str, Any]) -> Mapping[str, Any]:
    sources: Mapping[str, Mapping[str, Any]] = section.get("sources") or {}
    return next(iter(sources.values()), section)


@dataclass(frozen=True)
class WrittenSplits:
    """User datasets whose annotations are written as COCO JSON; see :mod:`tldet.data.relabeled`.

    Attributes:
        folder: output folder of the JSON files.
        seed: random seed of the datasets.
        masks: write masks.
        sources: config sections of the written datasets by name.
    """

    folder: Path
    seed: int
    masks: bool = False
    sources: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def write(self, section: Mapping[str, Any], key: str) -> Split:
        """Write the annotations of a dataset to ``KEY.json``.

        Args:
            section: its config section.
            key: name of the file.

        Raises:
            TldetError: a key or an annotation is wrong.
        """
        own = {name: value for name, value in section.items() if name not in LOADER_KEYS}
        dataset = build_dataset({**section, "transforms": (), "masks": self.masks}, self.seed, path=key)
        assert isinstance(dataset, CustomDataset)
        name = source_name(own)
        self.sources[name] = own
        return write_annotations(dataset, name, self.folder / f"{key}.json")
