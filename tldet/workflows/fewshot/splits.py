"""Splits of a few-shot experiment: annotation files, or the user datasets of the recipe or base checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tldet.components import require_components
from tldet.config import Config
from tldet.data.layouts import Layout
from tldet.data.relabeled import LOADER_KEYS, Sources, coco_type
from tldet.errors import ConfigError
from tldet.system.output import make_folder, write_text
from tldet.transfer.provenance import checkpoint_outline
from tldet.workflows.fewshot.request import FewShotRequest
from tldet.workflows.options import SPLITS
from tldet.workflows.study.data import SPLIT_SEED, layout_of
from tldet.workflows.training.custom_data import WrittenSplits, user_recipe, with_own_data
from tldet.workflows.training.recipes import load_recipe

ANNOTATIONS_FOLDER = "data"  # folder of generated annotations in the output directory
_NOTE = "# Written by `tldet fewshot`: the recipe with the annotations of its user dataset as COCO JSON.\n"


def find_fewshot_splits(request: FewShotRequest) -> tuple[Layout, str | None, Sources]:
    """Find the splits of an experiment.

    The annotations of a user dataset are written as COCO JSON, from which base classes and K shots are taken; its
    images stay in the dataset.

    Returns:
        The splits, the recipe of base training, and the user datasets by name.

    Raises:
        TldetError: the data is missing or wrong.
    """
    config, source = _config(request)
    recipe = user_recipe(config, source) if request.format is None else None
    if recipe is None:
        return layout_of(request), request.model, {}
    request.refuse_source(source)
    if not (config["data"].get("val") or config["data"].get("test")):
        raise ConfigError(f"{source}: has no data.val; a few-shot experiment needs a dataset for validation")
    if request.on_bad_image is not None:
        raise ConfigError("--on-bad-image: is for image files; a user dataset checks its own images, leave it out")
    folder = make_folder(request.folder / ANNOTATIONS_FOLDER)
    written = WrittenSplits(folder, SPLIT_SEED, config["model"]["head"].get("mask") is not None)
    splits = with_own_data(recipe, request.paths(), {})["data"]
    layout = Layout(**{name: written.write(splits[name], name) for name in SPLITS if name in splits})
    return layout, _write_recipe(config, written, folder / "recipe.py"), written.sources


def _config(request: FewShotRequest) -> tuple[Mapping[str, Any], str]:
    """Return the config of the recipe or of the base checkpoint, and its name."""
    if request.base is None:
        return load_recipe(request.model).data, str(request.model)
    state = checkpoint_outline(Path(request.base))
    if request.format is None:
        require_components(request.base, state, "data")
    return state["config"], str(request.base)


def _write_recipe(config: Mapping[str, Any], written: WrittenSplits, path: Path) -> str:
    """Write the recipe with the type of the written annotations in each split; return its path."""
    recipe = copy.deepcopy(dict(config))
    for name in SPLITS:
        if stored := recipe["data"].get(name):
            kept = {key: stored[key] for key in ("masks", LOADER_KEYS[0]) if key in stored}
            recipe["data"][name] = {**coco_type(written.sources), **kept}
    write_text(path, _NOTE + Config(recipe).dump())
    return str(path)
