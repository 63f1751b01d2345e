"""``tldet finetune``: from a folder to a detector, no config to write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.config import Config, load
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Layout, Split, find_images, find_layout, split_one
from tldet.engine.distributed import joined
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.models.replace import replace_backbone
from tldet.workflows.choose import Choices, choose_for, transforms
from tldet.workflows.parts import SCHEMA
from tldet.workflows.runs import course_over, refuse_earlier_run, resume_run, rhythm, settle_config, steps_in_epoch
from tldet.workflows.start import check_start, set_weights
from tldet.workflows.train import Outcome, train
from tldet.workflows.transfer_options import TransferOptions

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
DEFAULT_MODEL = "faster_rcnn_lite0"
NOTE = "# Written by `tldet finetune`; `tldet train {path} --work-dir {folder} --resume` goes on.\n"
NEEDED = ("model.head", "model.backbone", "schedule", "optimizer")  # sections of a recipe
OPTIONAL = ("data", "data.loader", "training", "freeze", "class_match")  # those that it may leave out
VIT_LAYER_DECAY = 0.7  # Li et al. 2022 (ViTDet), appendix A.2, for the base size


def finetune(
    data: str | Path | None = None,
    *,
    out: str | Path,
    model: str | None = None,
    backbone: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    scratch: bool = False,
    weights: str | Path | None = None,
    train_json: str | Path | None = None,
    val_json: str | Path | None = None,
    images: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    transfer: TransferOptions | None = None,
    options: Sequence[str] = (),
    console: Console | None = None,
) -> Outcome:
    """Fine-tune a recipe on COCO-format data and measure it.

    Args:
        data: a folder in one of the usual layouts.
        out: the run's folder; the config that was used is written there.
        model: a recipe, ``faster_rcnn_lite0`` when None; ``tldet models --detectors`` lists them.
        backbone: a network of torchvision or timm instead of the recipe's; ``tldet models --backbones`` lists them.
        epochs: length in passes over the data.
        minutes: length as a budget of training time; start-up and evaluation do not count.
        steps: length in steps; 0 measures and saves the start.
        seed: what every random draw comes from; 0 when None.
        scratch: start from random weights.
        weights: start from a whole detector instead of an ImageNet backbone: "coco" takes the published one of the
            recipe, a path a checkpoint of tldet, mmdet or torchvision; a path may also be a backbone's weights.
        train_json: annotations to train on, instead of what ``data`` holds.
        val_json: annotations to measure on.
        images: picture folder of every part.
        resume: go on with the run in ``out``, by the config in it; only ``options`` change it.
        init_from: a tldet checkpoint to start from.
        transfer: what of the start stays, and how its classes are known again.
        options: ``a.b=c`` on top of what is chosen.
        console: shows what was chosen, progress and the numbers.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder, transfer = Path(out), transfer or TransferOptions()
    if resume:
        given: dict[str, object] = {
            "data": data,
            "model": model,
            "backbone": backbone,
            "epochs": epochs,
            "minutes": minutes,
        }
        given |= {"steps": steps, "seed": seed, "scratch": scratch or None, "weights": weights, "train": train_json}
        given |= {"val": val_json, "images": images, "init-from": init_from, **transfer.given()}
        go_on = partial(train, work_dir=folder, resume=True, console=console)
        return resume_run(folder, given, options, SCHEMA, NOTE, go_on)
    model, seed = DEFAULT_MODEL if model is None else model, 0 if seed is None else seed
    if seed < 0:
        raise TrainingError(f"--seed must be at least 0, not {seed}")

    def chosen() -> Config:
        refuse_earlier_run(folder)
        check_start(weights, scratch, backbone, init_from)
        if scratch:
            transfer.refuse_scratch()
        recipe = load_recipe(model)
        layout = resolve_layout(data, train_json, val_json, images, folder, seed)
        index = AnnotationIndex.load(layout.train.annotations)
        choices = choose_for(recipe, index, epochs=epochs, minutes=minutes, steps=steps)
        config = _filled(recipe, layout, index, choices, seed, scratch)
        changes = _replace_backbone(config, backbone, scratch) if backbone else []
        if weights is not None:
            set_weights(config, str(weights), model)
        transfer.write(config)
        for line in choices.reasons + changes:
            log.info("%s", line)
        return settle_config(folder, config, options, NOTE)

    with joined() as world:
        return train(world.first(chosen), work_dir=folder, init_from=init_from, console=console)


def load_recipe(model: str) -> Config:
    """The config that ``--model`` names, if data, length and options can be written into it.

    Raises:
        ConfigError: there is none of that name, or a section is missing or no section.
    """
    recipe = load(model)
    for key in NEEDED + OPTIONAL:
        section = recipe.get(key)
        if not section and key in NEEDED:
            raise ConfigError(
                f"--model {model}: describes no detector to train, it has no {key}; see `tldet models --detectors`"
            )
        if section is not None and not isinstance(section, dict):
            raise ConfigError(f"{key}: must be a section (a dict), not {section!r} (in {recipe.origin(key)})")
    return recipe


def resolve_layout(
    data: str | Path | None,
    train_json: str | Path | None,
    val_json: str | Path | None,
    images: str | Path | None,
    out: Path,
    seed: int,
) -> Layout:
    """What to train and to measure on.

    Args:
        data: a folder in one of the usual layouts; relative paths are looked for in it first.
        train_json: annotations to train on; by default those of ``data``.
        val_json: annotations to measure on; by default those of ``data``. Where there are none, what is to train on is
            split.
        images: picture folder of every part; by default looked for.
        out: the two parts of what is split go to its ``split``.
        seed: what the split is drawn from.

    Raises:
        DataError: there is nothing to train on, or pictures are not found.
    """
    if train_json is None and data is None:
        raise DataError("give --data DIR, or --train JSON with --images DIR")
    root = None if data is None else Path(data)
    if root is not None and not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folder = None if images is None else _inside(root, images)
    if folder is not None and not folder.is_dir():
        raise DataError(f"--images {images}: no such folder")
    paths = [None if one is None else _inside(root, one) for one in (train_json, val_json)]
    train, val, test = (
        None if path is None else Split(path, folder or find_images(path, root or path.parent))
        for path in _with_data(root, paths)
    )
    assert train is not None
    if val is None:
        val, test = test, None
    if val is None:
        train, val = split_one(train, out / "split", seed=seed)
    return Layout(train, val, test)


def _inside(root: Path | None, name: str | Path) -> Path:
    """A path inside the data folder where it is there, else as given."""
    inside = Path(name) if root is None else root / name
    return inside if inside.exists() else Path(name)


def _with_data(root: Path | None, paths: Sequence[Path | None]) -> list[Path | None]:
    """The JSON files to train on, to measure on and to test on: as named, the others those of the data folder."""
    train, val = paths
    if root is None:
        return [train, val, None]
    try:
        layout = find_layout(root, root)  # where the pictures are is only asked of the parts that are used
    except DataError as error:
        if train is None:
            raise
        log.info("%s; no part is taken from there", error)  # it may be there for its pictures
        return [train, val, None]
    train = train or layout.train.annotations
    named = {path.resolve() for path in (train, val) if path is not None}
    rest = [part.annotations if part else None for part in (layout.val, layout.test)]
    found_val, test = (None if path is None or path.resolve() in named else path for path in rest)
    return [train, val or found_val, test]


def _filled(
    recipe: Config, layout: Layout, index: AnnotationIndex, choices: Choices, seed: int, scratch: bool
) -> dict[str, Any]:
    """The recipe with data, classes, sizes and length filled in."""
    config: dict[str, Any] = recipe.data
    steps_train, steps_val = transforms(choices)
    data = config["data"] = config.get("data") or {}
    masks = config["model"]["head"].get("mask") is not None
    data["train"] = section_of(layout.train, steps_train, masks)
    for name, split in (("val", layout.val), ("test", layout.test)):
        if split is not None:
            data[name] = section_of(split, steps_val, masks)
    data["loader"] = {**(data.get("loader") or {}), "batch_size": choices.batch}
    config["model"]["head"]["num_classes"] = len(index.class_names)
    config["schedule"] = course_over(config["schedule"], choices.length)
    course = rhythm(choices.length, steps_in_epoch(len(index), choices.batch))
    config["training"] = {**(config.get("training") or {}), "seed": seed, **course}
    if scratch:
        _from_scratch(config)
    return config


def section_of(split: Split, steps: list[dict[str, Any]], masks: bool) -> dict[str, Any]:
    """The section of a config for a JSON and its pictures."""
    annotations, images = str(split.annotations.resolve()), str(split.images.resolve())
    read = {"masks": True} if masks else {}
    return {"type": "CocoDataset", "annotations": annotations, "images": images, "transforms": steps, **read}


def _from_scratch(config: dict[str, Any]) -> None:
    """Random weights learn nothing with frozen layers and the statistics of nothing."""
    config["model"]["backbone"].update(weights=None, frozen_stages=-1, norm="batch")


def _replace_backbone(config: dict[str, Any], name: str, scratch: bool) -> list[str]:
    """Another network in the backbone's place; the lines that say what that changed."""
    config["model"], lines = replace_backbone(config["model"], name, scratch=scratch)
    pretrained = config["model"]["backbone"]["weights"] is not None
    if config["model"]["backbone"]["type"] == "ViTBackbone" and pretrained:
        if "layer_decay" not in config["optimizer"]:
            config["optimizer"].update(layer_decay=VIT_LAYER_DECAY, backbone_lr=1.0)  # Li et al. 2022
        lines.append(f"each block learns {config['optimizer']['layer_decay']} times as fast as the one above it")
    return lines
