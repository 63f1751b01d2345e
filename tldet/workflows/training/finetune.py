"""Fine-tune a recipe on a dataset, without a config file."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from tldet.config import Config, build_settings, override, parse_options
from tldet.config.check import validate_config
from tldet.data.formats.source import FOLDER
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Layout, Split
from tldet.data.split_paths import resolve_layout
from tldet.models.replace import replace_backbone
from tldet.system.inputs import real_path
from tldet.transfer.freeze import FreezeSettings
from tldet.workflows.options import SPLITS
from tldet.workflows.requests import takes
from tldet.workflows.training.choose import Choices, choose_for
from tldet.workflows.training.custom_data import own_index, with_own_data
from tldet.workflows.training.initial_weights import check_initial, check_scratch, from_scratch, with_weights
from tldet.workflows.training.outcome import Outcome
from tldet.workflows.training.recipes import has_own_data, load_recipe, require_resize, split_transforms
from tldet.workflows.training.request import FinetuneRequest
from tldet.workflows.training.run_config import final_config, intervals_for, schedule_for, steps_in_epoch, using
from tldet.workflows.training.run_folder import (
    RunFiles,
    StoredRun,
    read_run,
    refuse_earlier_run,
    removed_on_failure,
    resumes,
)
from tldet.workflows.training.schema import SCHEMA, with_bad_image
from tldet.workflows.training.train import run_training

log = logging.getLogger(__name__)
_NOTE = "# Written by `tldet finetune`; resume with `tldet finetune --out {folder} --resume`.\n"
# JSON files that are written if the data has no validation split, or another format than COCO JSON.
SPLIT = ("split/train.json", "split/val.json", *(f"{FOLDER}/{name}.json" for name in ("train", "val", "test", "all")))
PATHS = ("annotations", "images", "classes")  # keys of a split that are not taken from the recipe
VIT_LAYER_DECAY = 0.7  # Li et al. 2022 (ViTDet), appendix A.2, for the base size


@takes(FinetuneRequest)
def finetune(request: FinetuneRequest) -> Outcome:
    """Fine-tune a recipe on COCO-format data and evaluate the result.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder = request.folder
    with using(folder) as world:
        stored = world.first(lambda: _resumed(request))
        if stored is not None:
            resume, report = stored.resume, request.report
            return run_training(stored.config, request, folder, resume=resume, files=stored.files, report=report)
        with removed_on_failure(folder, *SPLIT):
            used = world.first(lambda: new_config(request))
            files = RunFiles(folder, used.dump(), _NOTE, request.record())
            start, report = request.init_from, request.report
            return run_training(used, request, folder, init_from=start, files=files, report=report)


def _resumed(request: FinetuneRequest) -> StoredRun | None:
    """Return the run to resume; None to start one."""
    named = request.data is not None or request.train is not None
    if request.resume and resumes(request.folder, startable=named or has_own_data(load_recipe(request.recipe))):
        return read_run(request.folder, request.given(), request.overrides(), SCHEMA, _NOTE)
    return None


def new_config(request: FinetuneRequest) -> Config:
    """Return the config of a new run and log its choices; see :func:`planned_config`."""
    refuse_earlier_run(request.folder)
    config, lines = planned_config(request)
    for line in lines:
        log.info("%s", line)
    return config


def planned_config(request: FinetuneRequest) -> tuple[Config, list[str]]:
    """Return the recipe with data, classes, input size and length filled in, and a line for each choice.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    check_initial(request.weights, request.scratch, request.backbone, request.init_from)
    if request.scratch:
        request.refuse_scratch()
    options, recipe = parse_options(request.overrides()), load_recipe(request.recipe)
    layout = None
    if has_own_data(recipe):
        request.refuse_source(request.recipe)
        recipe = with_own_data(recipe, request.paths(), options)
        index = own_index(recipe, request.seed_value)
    else:
        layout = resolve_layout(
            request.data,
            request.train,
            request.val,
            request.images,
            request.folder,
            request.seed_value,
            request.source(request.on_bad_image),
        )
        index = AnnotationIndex.load(layout.train.annotations)
    given = (request.length, request.backbone, request.augment, request.input_size, _freezing(recipe, request, options))
    choices = choose_for(recipe, index, options, *given)
    config, lines = _from_request(_filled(recipe, layout, index, choices, request), request)
    decays = request.layer_decay is not None or "layer_decay" not in recipe["optimizer"]
    used = final_config(config, request.overrides(), f"recipe {request.recipe}", decays=decays)
    if request.scratch:
        check_scratch(used)
    require_resize(used, SPLITS)
    return used, [*choices.reasons, *lines]


def _freezing(recipe: Config, request: FinetuneRequest, options: Mapping[str, Any]) -> FreezeSettings:
    """Return the frozen layers of the run."""
    own = {key: value for key, value in options.items() if key.partition(".")[0] == "freeze"}
    section = override(Config(request.written(recipe.data)), own).get("freeze") or {}
    validate_config(Config({"freeze": section}), {"freeze": SCHEMA["freeze"]})
    return build_settings(FreezeSettings, section)


def _filled(
    recipe: Config, layout: Layout | None, index: AnnotationIndex, choices: Choices, request: FinetuneRequest
) -> dict[str, Any]:
    """Return the recipe with data, classes, input size and length filled in."""
    config: dict[str, Any] = copy.deepcopy(recipe.data)
    config["data"] = _data(recipe, layout, choices)
    config["model"]["head"]["num_classes"] = len(index.class_names)
    config["schedule"] = schedule_for(config["schedule"], choices.length)
    intervals = intervals_for(choices.length, steps_in_epoch(len(index), choices.batch))
    config["training"] = {**(config.get("training") or {}), "seed": request.seed_value, **intervals}
    return config


def _data(recipe: Config, layout: Layout | None, choices: Choices) -> dict[str, Any]:
    """Return the ``data`` section of a recipe with the input size and the paths of each COCO split filled in."""
    own: dict[str, Any] = recipe.get("data") or {}
    masks = recipe["model"]["head"].get("mask") is not None
    steps = split_transforms(recipe, choices.short, choices.long, choices.augment)
    data = dict(own)
    for name in SPLITS:
        data.pop(name, None)
        split: Split | None = getattr(layout, name, None)
        if layout is None and own.get(name):
            data[name] = {**own[name], "transforms": steps[name]}
        elif split is not None:
            stored = own.get(name) or {key: value for key, value in (own.get("train") or {}).items() if key == "type"}
            data[name] = section_of(split, steps[name], masks, stored)
    data["loader"] = {**(own.get("loader") or {}), "batch_size": choices.batch}
    return data


def section_of(
    split: Split, transforms: list[dict[str, Any]], masks: bool, recipe: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the config section of a split.

    Args:
        split: its annotations and images.
        transforms: its transforms.
        masks: read segmentations.
        recipe: the section of the recipe, whose other keys are kept.
    """
    stored = {key: value for key, value in (recipe or {}).items() if key not in PATHS}
    paths = {"annotations": str(real_path(split.annotations)), "images": str(real_path(split.images))}
    read = {"masks": True} if masks else {}
    return {"type": "CocoDataset", **stored, **paths, "transforms": transforms, **read}


def _from_request(config: dict[str, Any], request: FinetuneRequest) -> tuple[dict[str, Any], list[str]]:
    """Return a config with user-specified weights, backbone and transfer options, and a line for each change."""
    lines: list[str] = []
    if request.scratch:
        config, lines = from_scratch(config)
    if request.backbone is not None:
        config, changes = with_backbone(config, request.backbone, request.scratch)
        lines = [*lines, *changes]
    if request.weights is not None:
        config = with_weights(config, str(request.weights), request.recipe)
    return with_bad_image(request.written(config), request.on_bad_image), lines


def with_backbone(recipe: Mapping[str, Any], name: str, scratch: bool) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe with another backbone, and a log line for each change."""
    old = dict(recipe["model"])
    weights = old.pop("weights", None)
    model, lines = replace_backbone(old, name, scratch=scratch)
    optimizer = dict(recipe["optimizer"])
    if weights:
        lines.append(f"--backbone: dropped model.weights = {weights!r} of the recipe (weights of another backbone)")
    if model["backbone"]["type"] == "ViTBackbone" and model["backbone"]["weights"] is not None:
        if "layer_decay" not in optimizer:
            optimizer["layer_decay"] = VIT_LAYER_DECAY
        lines.append(f"layer-wise learning rate decay {optimizer['layer_decay']}")
    return {**recipe, "model": model, "optimizer": optimizer}, lines
