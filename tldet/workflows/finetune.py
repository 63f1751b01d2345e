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
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.models.replace import replace_backbone
from tldet.workflows.choose import Choices, choose_for, transforms
from tldet.workflows.parts import SCHEMA
from tldet.workflows.runs import refuse_earlier_run, resume_run, rhythm, settle_config
from tldet.workflows.start import check_start, set_weights
from tldet.workflows.train import Outcome, train
from tldet.workflows.transfer_options import TransferOptions

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
DEFAULT_MODEL = "faster_rcnn_lite0"
NOTE = "# Written by `tldet finetune`; `tldet train {path} --work-dir {folder} --resume` goes on.\n"
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
        images: picture folder of both.
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
    refuse_earlier_run(folder)
    check_start(weights, scratch, backbone, init_from)
    if scratch:
        transfer.refuse_scratch()
    recipe = load(model)
    if not recipe.get("model.head"):
        raise ConfigError(f"--model {model}: describes no detector, it has no model.head")
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
    used = settle_config(folder, config, options, NOTE)
    return train(used, work_dir=folder, init_from=init_from, console=console)


def resolve_layout(
    data: str | Path | None,
    train_json: str | Path | None,
    val_json: str | Path | None,
    images: str | Path | None,
    out: Path,
    seed: int,
) -> Layout:
    """What to train and to measure on; one JSON alone is split, the parts go to ``out/split``.

    Raises:
        DataError: there is nothing to train on, or pictures are not found.
    """
    if train_json is None and data is None:
        raise DataError("give --data DIR, or --train JSON with --images DIR")
    if train_json is None:
        layout = find_layout(Path(str(data)))
    else:
        layout = Layout(_split(_inside(data, train_json), images, data))
    if val_json is not None:
        layout = Layout(layout.train, _split(_inside(data, val_json), images, data), None)
    if layout.val is None and layout.test is not None:
        layout = Layout(layout.train, layout.test, None)
    if layout.val is None:
        part, held = split_one(layout.train, out / "split", seed=seed)
        layout = Layout(part, held)
    return layout


def _inside(data: str | Path | None, name: str | Path) -> Path:
    """A path as given, or inside the data folder."""
    given = Path(name)
    inside = Path(data) / given if data is not None else given
    return inside if inside.is_file() and not given.is_file() else given


def _split(path: Path, images: str | Path | None, data: str | Path | None) -> Split:
    if images is None:
        return Split(path, find_images(path, Path(data) if data is not None else path.parent))
    inside = Path(data) / images if data is not None else Path(images)
    return Split(path, inside if inside.is_dir() and not Path(images).is_dir() else Path(images))


def _filled(
    recipe: Config, layout: Layout, index: AnnotationIndex, choices: Choices, seed: int, scratch: bool
) -> dict[str, Any]:
    """The recipe with data, classes, sizes and length filled in."""
    config: dict[str, Any] = recipe.data
    steps_train, steps_val = transforms(choices)
    data = config.setdefault("data", {})
    masks = config["model"]["head"].get("mask") is not None
    data["train"] = section_of(layout.train, steps_train, masks)
    for name, split in (("val", layout.val), ("test", layout.test)):
        if split is not None:
            data[name] = section_of(split, steps_val, masks)
    loader = data.setdefault("loader", {})
    loader["batch_size"] = choices.batch
    config["model"]["head"]["num_classes"] = len(index.class_names)
    schedule = config["schedule"]
    for key in ("epochs", "steps", "minutes"):
        schedule.pop(key, None)
    schedule.update(choices.length)
    training = config.setdefault("training", {})
    training["seed"] = seed
    training.update(rhythm(choices.length, max(1, len(index) // choices.batch)))
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
        config["optimizer"].setdefault("layer_decay", VIT_LAYER_DECAY)
        lines.append(f"each block learns {config['optimizer']['layer_decay']} times as fast as the one above it")
    return lines
