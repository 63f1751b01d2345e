"""Config of an extended detector: that of the original detector with more classes, other data and a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from tldet.data.relabeled import coco_type
from tldet.errors import CheckpointError
from tldet.models.distillation import DistillSettings
from tldet.registry import HEADS
from tldet.system.inputs import file_hash, real_path
from tldet.workflows.extend.data import ExtendData
from tldet.workflows.training.finetune import section_of
from tldet.workflows.training.recipes import default_transforms
from tldet.workflows.training.run_config import derive_config
from tldet.workflows.training.run_options import Length

SURE = {True: 0.7, False: 0.3}  # score threshold of a teacher with softmax or sigmoid (see docs/extend.md)


def trained_config(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training config of a checkpoint.

    Raises:
        CheckpointError: the checkpoint has no training config.
    """
    config: dict[str, Any] = copy.deepcopy(state["config"])
    if not config.get("optimizer") or not config.get("schedule"):
        raise CheckpointError(f"{path}: its config has no optimizer and schedule, so it cannot be trained further")
    return config


def extended_config(
    path: Path,
    state: Mapping[str, Any],
    data: ExtendData,
    length: Length,
    seed: int,
    batch: int,
    *,
    distill: bool,
) -> dict[str, Any]:
    """Return the config of the run.

    Args:
        path: checkpoint of the original detector.
        state: content of the checkpoint.
        data: training and validation data.
        length: length of the run.
        seed: seed of the run.
        batch: batch size.
        distill: use the original detector as a teacher; False for plain fine-tuning, which treats every class as
            annotated on every image.

    Raises:
        CheckpointError: the checkpoint has no training config.
    """
    config = trained_config(path, state)
    section = _data(config, state["meta"]["input"], data)
    section["loader"] = {**section["loader"], "batch_size": batch}
    derive_config(config, section, length, seed, data.images)
    config["model"]["weights"] = {"source": str(real_path(path))}
    config["model"]["head"]["num_classes"] = len(data.old) + len(data.new)
    if distill:
        config["distill"] = _teacher(path, config["model"]["head"]["type"])
    else:
        config["data"]["train"]["partial"] = False
    return config


def _data(config: Mapping[str, Any], size: Mapping[str, int], data: ExtendData) -> dict[str, Any]:
    """Return the ``data`` section, with the input size and augmentation of the original detector."""
    before = config.get("data") or {}
    usual, test = default_transforms(size["short"], size["long"])
    steps = (before.get("train") or {}).get("transforms") or usual
    masks = config["model"]["head"].get("mask") is not None
    kind = coco_type(data.sources)
    train = {**section_of(data.train, steps, masks, kind), "classes": [*data.old, *data.new]}
    return {"train": train, "val": section_of(data.val, test, masks, kind), "loader": before.get("loader") or {}}


def _teacher(path: Path, head: str) -> dict[str, Any]:
    HEADS.import_from_location()
    own = {field.name: field.default for field in fields(DistillSettings)}  # in the config, to be changed there
    own["score_thr"] = SURE[getattr(HEADS.get(head), "softmax", False)]
    return {"teacher": str(real_path(path)), "sha256": file_hash(path), **own}
