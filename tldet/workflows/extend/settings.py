"""The config of an extended detector: the old one's, with more classes, other data and a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tldet.errors import CheckpointError
from tldet.models.distillation import DistillSettings
from tldet.registry import HEADS
from tldet.system.inputs import real_path
from tldet.transfer.downloads import file_hash
from tldet.workflows.extend.data import Prepared
from tldet.workflows.training.finetune import section_of
from tldet.workflows.training.recipes import default_transforms
from tldet.workflows.training.run_config import renew
from tldet.workflows.training.run_options import Length

SURE = {True: 0.7, False: 0.3}  # score of a teacher with a softmax or without it (docs/extend.md has the figures)


def trained_config(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """The config in a checkpoint, which must say how it was trained.

    Raises:
        CheckpointError: it does not.
    """
    config: dict[str, Any] = copy.deepcopy(state["config"])
    if not config.get("optimizer") or not config.get("schedule"):
        raise CheckpointError(f"{path}: its config describes no training, which could be gone on with")
    return config


def extended_config(
    path: Path,
    state: Mapping[str, Any],
    data: Prepared,
    length: Length,
    seed: int,
    batch: int,
    *,
    distill: bool,
) -> dict[str, Any]:
    """What ``tldet train`` is to do.

    Args:
        path: the old detector's checkpoint.
        state: what it holds.
        data: what is learned and measured on.
        length: length of the run.
        seed: of the run.
        batch: batch size.
        distill: with a teacher; else every image counts as labeled for every class: plain fine-tuning.

    Raises:
        CheckpointError: the checkpoint does not say how it was trained.
    """
    config = trained_config(path, state)
    section = _data(config, state["meta"]["input"], data)
    section["loader"] = {**section["loader"], "batch_size": batch}
    renew(config, section, length, seed, data.images)
    config["model"]["weights"] = {"source": str(real_path(path))}
    config["model"]["head"]["num_classes"] = len(data.old) + len(data.new)
    if distill:
        config["distill"] = _teacher(path, config["model"]["head"]["type"])
    else:
        config["data"]["train"]["partial"] = False
    return config


def _data(config: Mapping[str, Any], size: Mapping[str, int], data: Prepared) -> dict[str, Any]:
    """Images as large and as augmented as the old detector's were."""
    before = config.get("data") or {}
    usual, test = default_transforms(size["short"], size["long"])
    steps = (before.get("train") or {}).get("transforms") or usual
    masks = config["model"]["head"].get("mask") is not None
    train = {**section_of(data.train, steps, masks), "classes": [*data.old, *data.new]}
    return {"train": train, "val": section_of(data.val, test, masks), "loader": before.get("loader") or {}}


def _teacher(path: Path, head: str) -> dict[str, Any]:
    HEADS.import_from_location()
    own = {field.name: field.default for field in fields(DistillSettings)}  # written down, to be seen and changed
    own["score"] = SURE[hasattr(HEADS.get(head), "background_layers")]
    return {"teacher": str(real_path(path)), "sha256": file_hash(path), **own}
