"""``tldet finetune``: from a folder to a detector, no config to write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.config import Config, load, parse_options
from tldet.data.image_folders import find_images
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import AnnotationFiles, Layout, Split
from tldet.data.splits import split_one
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.inputs import exists, is_folder, real_path
from tldet.models.replace import replace_backbone
from tldet.workflows.choose import Choices, choose_for, transforms
from tldet.workflows.parts import SCHEMA, set_bad_image
from tldet.workflows.runs import (
    course_over,
    refuse_earlier_run,
    resume_run,
    rhythm,
    settle_config,
    steps_in_epoch,
    using,
)
from tldet.workflows.start import check_scratch, check_start, from_scratch, set_weights
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
    on_bad_image: str | None = None,
    options: Sequence[str] = (),
    console: Console | None = None,
) -> Outcome:
    """Fine-tune a recipe on COCO-format data and evaluate the result.

    Args:
        data: a folder in one of the usual layouts.
        out: output directory; the final config is written there.
        model: a recipe, ``faster_rcnn_lite0`` when None; ``tldet models --detectors`` lists them.
        backbone: a torchvision or timm network instead of the recipe's; ``tldet models --backbones`` lists them.
        epochs: number of epochs.
        minutes: training time, without start-up and evaluation.
        steps: number of training steps; 0 evaluates and saves the initial weights.
        seed: random seed; 0 when None.
        scratch: random initial weights.
        weights: initial weights: "coco" (the recipe's published COCO weights), a detector checkpoint (tldet,
            MMDetection, torchvision) or a backbone file; by default an ImageNet backbone.
        train_json: training annotations, instead of those in ``data``.
        val_json: validation annotations, instead of those in ``data``.
        images: image folder of all splits; see :func:`resolve_layout`.
        resume: resume the run in ``out`` with its config, changed only by ``options``.
        init_from: a tldet checkpoint with the initial weights.
        transfer: freezing, learning-rate decay and matching of classes.
        on_bad_image: "error" (default) or "skip" for images that are missing, unreadable, truncated or of another size
            than in the JSON.
        options: config overrides ``a.b=c``.
        console: shows the choices, progress and metrics.

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
        given |= {
            "val": val_json,
            "images": images,
            "init-from": init_from,
            "on-bad-image": on_bad_image,
            **transfer.given(),
        }
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
        length = {"epochs": epochs, "minutes": minutes, "steps": steps}
        choices = choose_for(recipe, index, parse_options(options), **length, backbone=backbone)  # type: ignore[arg-type]
        config = _filled(recipe, layout, index, choices, seed)
        dropped = from_scratch(config) if scratch else []
        changes = _replace_backbone(config, backbone, scratch) if backbone else []
        if weights is not None:
            set_weights(config, str(weights), model)
        transfer.write(config)
        set_bad_image(config, on_bad_image)
        for line in choices.reasons + dropped + changes:
            log.info("%s", line)
        used = settle_config(folder, config, options, NOTE)
        if scratch:
            check_scratch(used)
        return used

    with using(folder) as world:
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
    """Find the training, validation and test splits.

    Args:
        data: a folder in one of the usual layouts; relative paths are looked for in it first.
        train_json: training annotations; by default those of ``data``.
        val_json: validation annotations; by default those of ``data``. If there are none, the test split is used;
            without a test split, the training split is divided.
        images: image folder of all splits, or its path within each split (``images`` for ``train/images`` and
            ``val/images``); searched by default.
        out: output directory; a divided training split is written to its subfolder ``split``.
        seed: random seed of the division.

    Raises:
        DataError: training annotations or image folders are not found.
    """
    if train_json is None and data is None:
        raise DataError("give --data DIR, or --train JSON with --images DIR")
    root = None if data is None else Path(data)
    if root is not None and not is_folder(root):
        raise DataError(f"{root}: no such folder")
    train, val, test = _annotations(root, *(None if p is None else _inside(root, p) for p in (train_json, val_json)))
    if val is None and test is not None:
        log.warning("no validation annotations: the test split (%s) is used for validation", test)
        val, test = test, None
    find = partial(_split, root=root, images=images)
    found = {name: find(path) for name, path in (("train", train), ("val", val), ("test", test)) if path is not None}
    for name, split in found.items():
        log.info("%s: %s, images in %s", name, split.annotations, split.images)
    if "val" not in found:
        found["train"], found["val"] = split_one(found["train"], out / "split", seed=seed)
    return Layout(found["train"], found["val"], found.get("test"))


def _split(annotations: Path, root: Path | None, images: str | Path | None) -> Split:
    """Return the split of a JSON, with its images below ``root`` or around the JSON."""
    folder = None if images is None else _inside(root, images)
    if folder is not None and is_folder(folder):
        return Split(annotations, folder)
    if images is not None and root is None:
        raise DataError(f"--images {images}: no such folder")
    ending = None if images is None else Path(images)
    return Split(annotations, find_images(annotations, root or annotations.parent, ending=ending))


def _inside(root: Path | None, name: str | Path) -> Path:
    """Return a path inside the data folder if it exists there, else the path itself."""
    inside = Path(name) if root is None else root / name
    return inside if exists(inside) else Path(name)


def _annotations(root: Path | None, train: Path | None, val: Path | None) -> tuple[Path, Path | None, Path | None]:
    """Return the annotations of the three splits; those not given are searched in the data folder."""
    if root is None:
        assert train is not None
        return train, val, None
    files = AnnotationFiles.find(root, chosen=[path for path in (train, val) if path is not None])
    if train is None:
        train = files.train()
        return train, val or files.val(train), files.test()
    return train, val or files.val(), files.test()


def _filled(recipe: Config, layout: Layout, index: AnnotationIndex, choices: Choices, seed: int) -> dict[str, Any]:
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
    return config


def section_of(split: Split, steps: list[dict[str, Any]], masks: bool) -> dict[str, Any]:
    """The section of a config for a JSON and its pictures."""
    annotations, images = str(real_path(split.annotations)), str(real_path(split.images))
    read = {"masks": True} if masks else {}
    return {"type": "CocoDataset", "annotations": annotations, "images": images, "transforms": steps, **read}


def _replace_backbone(config: dict[str, Any], name: str, scratch: bool) -> list[str]:
    """Replace the backbone; return a log line for each change."""
    weights = config["model"].pop("weights", None)
    config["model"], lines = replace_backbone(config["model"], name, scratch=scratch)
    if weights:
        lines.append(f"--backbone: dropped model.weights = {weights!r} of the recipe, which belong to another backbone")
    pretrained = config["model"]["backbone"]["weights"] is not None
    if config["model"]["backbone"]["type"] == "ViTBackbone" and pretrained:
        if "layer_decay" not in config["optimizer"]:
            config["optimizer"].update(layer_decay=VIT_LAYER_DECAY, backbone_lr=1.0)  # Li et al. 2022
        lines.append(f"each block learns {config['optimizer']['layer_decay']} times as fast as the one above it")
    return lines
