"""Input datasets of ``tldet extend``: annotation files, or user datasets of the type of the original detector."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tldet.config import Config
from tldet.data.dataset import CocoDataset
from tldet.data.formats.source import SourceOptions
from tldet.data.layouts import Split
from tldet.data.split_paths import annotation_split, resolve_layout
from tldet.errors import DataError, TldetError
from tldet.plugins import lookup
from tldet.registry import DATASETS
from tldet.system.inputs import is_file, is_folder
from tldet.workflows.extend.data import ExtendInput
from tldet.workflows.extend.request import ExtendRequest
from tldet.workflows.training.custom_data import WrittenSplits, user_recipe, with_own_data

log = logging.getLogger(__name__)
DATA = "data"  # in the folder of the run
_KEYS = ("new", "replay", "new_val", "old_val", "original_val")
WRITTEN = tuple(f"{key}.json" for key in _KEYS)  # annotations of user datasets


def find_input(request: ExtendRequest, config: Mapping[str, Any], require: Callable[[], None]) -> ExtendInput:
    """Return the user-specified data, and the validation data of the original detector if it still exists.

    A detector that was trained on a user dataset is extended with data of the same type, unless ``--format`` names the
    format of annotation files.

    Args:
        request: the arguments.
        config: config of the detector.
        require: raises an error if the user dataset of the detector is not registered.

    Raises:
        TldetError: the data is missing or wrong.
    """
    masks = (config["model"]["head"] or {}).get("mask") is not None
    written = WrittenSplits(request.folder / DATA, request.seed_value, masks)
    recipe = user_recipe(config, "the config of the checkpoint") if request.format is None else None
    if recipe is None:
        given = _files(request)
    else:
        require()
        given = _user_data(request, recipe, written)
    own = None if request.old_val is not None else _original(config.get("data") or {}, written)
    return replace(given, own=own, sources=dict(written.sources))


def _files(request: ExtendRequest) -> ExtendInput:
    source = request.source(request.on_bad_image)
    splits = request.data, request.train, request.val, request.images
    layout = resolve_layout(*splits, request.folder, request.seed_value, source)
    assert layout.val is not None
    source = replace(source, classes=None)  # these have the old classes
    replay = _split(request.replay, request.replay_images, source)
    return ExtendInput(layout.train, replay, layout.val, _split(request.old_val, request.old_val_images, source), None)


def _split(annotations: str | Path | None, images: str | Path | None, source: SourceOptions) -> Split | None:
    if annotations is None:
        return None
    return annotation_split(Path(annotations), None if images is None else Path(images), source)


def _user_data(request: ExtendRequest, recipe: Config, written: WrittenSplits) -> ExtendInput:
    request.refuse_source("of the checkpoint")
    if request.data is None and (request.train is None or request.val is None):
        kind = recipe["data"]["train"]["type"]
        raise DataError(
            f"the checkpoint was trained on {kind}: use --train and --val (or --data) of this dataset, or --format "
            "for annotation files"
        )
    new = with_own_data(recipe, request.paths(), {})["data"]
    replay = _given(recipe, {"--replay": request.replay, "--replay-images": request.replay_images}, "train")
    old_val = _given(recipe, {"--old-val": request.old_val, "--old-val-images": request.old_val_images}, "val")
    return ExtendInput(
        written.write(new["train"], "new"),
        None if request.replay is None else written.write(replay, "replay"),
        written.write(new["val"], "new_val"),
        None if request.old_val is None else written.write(old_val, "old_val"),
        None,
    )


def _given(recipe: Config, paths: Mapping[str, str | Path | None], split: str) -> Mapping[str, Any]:
    section: Mapping[str, Any] = with_own_data(recipe, paths, {})["data"][split]
    return section


def _original(data: Mapping[str, Any], written: WrittenSplits) -> Split | None:
    """Return the test or validation data of the original detector; None if it does not exist any more."""
    for section in (data.get("test"), data.get("val")):
        if not section:
            continue
        if not _is_coco(section):
            return _read_again(section, written)
        if is_file(section.get("annotations", "")) and is_folder(section.get("images", "")):
            written.sources.update(section.get("sources") or {})
            return Split(Path(section["annotations"]), Path(section["images"]))
    return None


def _is_coco(section: Mapping[str, Any]) -> bool:
    target = lookup(DATASETS, str(section.get("type")))
    return inspect.isclass(target) and issubclass(target, CocoDataset)


def _read_again(section: Mapping[str, Any], written: WrittenSplits) -> Split | None:
    try:
        return written.write(section, "original_val")
    except TldetError as error:
        log.warning("validation data of the original detector cannot be read (%s); use --old-val", error)
        return None
