"""``tldet finetune``: from a folder to a detector, no config to write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.config import Config, parse_options
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Layout, Split
from tldet.errors import TrainingError
from tldet.inputs import real_path
from tldet.models.replace import replace_backbone
from tldet.workflows.choose import Choices, choose_for, transforms
from tldet.workflows.data_layout import resolve_layout
from tldet.workflows.own_data import has_own_data, own_index, own_sections, with_own_data
from tldet.workflows.parts import SCHEMA, set_bad_image
from tldet.workflows.recipes import DEFAULT_MODEL, load_recipe
from tldet.workflows.run_folder import Kept, RunFiles, continues, kept_run, refuse_earlier_run, removed_on_failure
from tldet.workflows.runs import course_over, rhythm, settled, steps_in_epoch, using
from tldet.workflows.start import check_scratch, check_start, from_scratch, set_weights
from tldet.workflows.train import Outcome, train
from tldet.workflows.transfer_options import TransferOptions

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
NOTE = "# Written by `tldet finetune`; resume with `tldet finetune --out {folder} --resume`.\n"
SPLIT = ("split/train.json", "split/val.json")  # of a run whose data are not divided yet
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
    callbacks: Sequence[Any] = (),
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
        images: image folder of all splits; see :func:`~tldet.workflows.data_layout.resolve_layout`.
        resume: resume the run in ``out`` with its config, changed only by ``options``; start it if there is no
            checkpoint yet. Other arguments may be given again, but must be those that the run was started with.
        init_from: a tldet checkpoint with the initial weights.
        transfer: freezing, learning-rate decay and matching of classes.
        on_bad_image: "error" (default) or "skip" for images that are missing, unreadable, truncated or of another size
            than in the JSON.
        options: config overrides ``a.b=c``.
        callbacks: objects derived from :class:`~tldet.engine.callbacks.Callback` (or mmengine's ``Hook``).
        console: shows the choices, progress and metrics.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder, transfer = Path(out), transfer or TransferOptions()
    given: dict[str, object] = {"data": data, "model": model, "backbone": backbone, "epochs": epochs}
    given |= {"minutes": minutes, "steps": steps, "seed": seed, "scratch": scratch or None, "weights": weights}
    given |= {"train": train_json, "val": val_json, "images": images, "init-from": init_from}
    given |= {"on-bad-image": on_bad_image, **transfer.given()}
    model, seed = DEFAULT_MODEL if model is None else model, 0 if seed is None else seed
    if seed < 0:
        raise TrainingError(f"--seed must be at least 0, not {seed}")

    def chosen() -> Config:
        refuse_earlier_run(folder)
        check_start(weights, scratch, backbone, init_from)
        if scratch:
            transfer.refuse_scratch()
        changed = parse_options(options)
        recipe = load_recipe(model)
        layout = None
        if has_own_data(recipe):
            paths = {"--data": data, "--train": train_json, "--val": val_json, "--images": images}
            recipe = with_own_data(recipe, paths, changed)
            index = own_index(recipe, seed)
        else:
            layout = resolve_layout(data, train_json, val_json, images, folder, seed)
            index = AnnotationIndex.load(layout.train.annotations)
        choices = choose_for(recipe, index, changed, epochs=epochs, minutes=minutes, steps=steps, backbone=backbone)
        config = _filled(recipe, layout, index, choices, seed)
        dropped = from_scratch(config) if scratch else []
        changes = _replace_backbone(config, backbone, scratch) if backbone else []
        if weights is not None:
            set_weights(config, str(weights), model)
        transfer.write(config)
        set_bad_image(config, on_bad_image)
        for line in choices.reasons + dropped + changes:
            log.info("%s", line)
        used = settled(config, options, f"recipe {model}")
        if scratch:
            check_scratch(used)
        return used

    def resumed() -> Kept | None:
        named = data is not None or train_json is not None
        if resume and continues(folder, startable=named or has_own_data(load_recipe(model))):
            return kept_run(folder, given, options, SCHEMA, NOTE)
        return None

    shown: dict[str, Any] = {"callbacks": callbacks, "console": console}
    with using(folder) as world:
        kept = world.first(resumed)
        if kept is not None:
            return train(kept.config, work_dir=folder, resume=kept.resume, files=kept.files, **shown)
        with removed_on_failure(folder, *SPLIT):
            used = world.first(chosen)
            files = RunFiles(folder, used, NOTE, {**given, "model": model, "seed": seed})
            return train(used, work_dir=folder, init_from=init_from, files=files, **shown)


def _filled(
    recipe: Config, layout: Layout | None, index: AnnotationIndex, choices: Choices, seed: int
) -> dict[str, Any]:
    """The recipe with data, classes, sizes and length filled in."""
    config: dict[str, Any] = recipe.data
    data = config["data"] = config.get("data") or {}
    data.update(own_sections(recipe, choices) if layout is None else _sections(layout, choices, config["model"]))
    data["loader"] = {**(data.get("loader") or {}), "batch_size": choices.batch}
    config["model"]["head"]["num_classes"] = len(index.class_names)
    config["schedule"] = course_over(config["schedule"], choices.length)
    course = rhythm(choices.length, steps_in_epoch(len(index), choices.batch))
    config["training"] = {**(config.get("training") or {}), "seed": seed, **course}
    return config


def _sections(layout: Layout, choices: Choices, model: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of the splits."""
    steps_train, steps_val = transforms(choices)
    masks = model["head"].get("mask") is not None
    sections = {"train": section_of(layout.train, steps_train, masks)}
    for name, split in (("val", layout.val), ("test", layout.test)):
        if split is not None:
            sections[name] = section_of(split, steps_val, masks)
    return sections


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
