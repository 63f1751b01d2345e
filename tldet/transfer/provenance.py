"""Checks of a checkpoint's ``meta``, and export of a pre-trained backbone with a record of its training."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.errors import CheckpointError
from tldet.structures.image import LARGEST_SIDE
from tldet.system.inputs import is_file
from tldet.text import counted
from tldet.transfer.safe_unpickle.archives import read_archive

_ABOUT = "pretrained_on"  # metadata key of exported backbones
OUT_NORMS = "out_norms."  # prefix of output norms, which differ in a detector
TASK = "classification"  # ``meta.task`` of pre-training checkpoints


def of_classifier(state: Mapping[str, Any]) -> bool:
    """Return True for a checkpoint of pre-training."""
    meta = state.get("meta")
    return isinstance(meta, Mapping) and meta.get("task") == TASK


def refuse_classifier(path: str | Path, state: Mapping[str, Any]) -> None:
    """Reject a checkpoint of pre-training.

    Raises:
        CheckpointError: the checkpoint is a classifier.
    """
    if of_classifier(state):
        raise CheckpointError(
            f"{path}: is a classifier of `tldet pretrain`, not a detector; fine-tune a detector with --weights {path}"
        )


def check_meta(path: str | Path, state: Mapping[Any, Any]) -> None:
    """Check the class names of a checkpoint and, for a detector, its category ids and input size.

    Raises:
        CheckpointError: a value is missing or malformed; the message names its key.
    """
    meta = state.get("meta")
    if not isinstance(meta, Mapping):
        raise _malformed(path, "meta", "must be a dict", meta)
    names: Any = meta.get("class_names")
    ids: Any = meta.get("category_ids")
    size: Any = meta.get("input")
    if not _distinct(names, str):
        raise _malformed(path, "meta.class_names", "must be a list of distinct names", names)
    if of_classifier(state):
        return
    if not _distinct(ids, int) or len(ids) != len(names):
        raise _malformed(path, "meta.category_ids", f"must be a list of {len(names)} distinct integers", ids)
    sides = list(size.values()) if isinstance(size, Mapping) and size.keys() == {"short", "long"} else []
    if not sides or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in sides):
        raise _malformed(path, "meta.input", f"must have 'short' and 'long', integers from 1 to {LARGEST_SIDE}", size)


def _distinct(values: Any, kind: type) -> bool:
    fitting = isinstance(values, (list, tuple)) and all(type(value) is kind for value in values)
    return fitting and 0 < len(values) == len(set(values))


def _malformed(path: str | Path, key: str, rule: str, value: Any) -> CheckpointError:
    try:
        found = reprlib.repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        found = type(value).__name__
    return CheckpointError(f"{path}: {key} {rule}, not {found}")


def checkpoint_outline(path: Path) -> dict[str, Any]:
    """Read a tldet checkpoint without its tensors (placeholders take their place).

    Raises:
        CheckpointError: the file cannot be read, is not a tldet checkpoint, or its ``meta`` is malformed.
    """
    value = read_archive(path).value
    if not isinstance(value, Mapping) or value.get("format") != checkpoint.FORMAT:
        raise CheckpointError(f"{path}: is not a tldet checkpoint")
    check_meta(path, value)
    return dict(value)


def export_backbone(source: Path, path: Path) -> Path:
    """Write the backbone of a pre-training checkpoint as safetensors, with averaged weights if there are any.

    The metadata contain the data, the number of classes, the initial weights, the accuracy, the number of steps, a hash
    of the config, and the versions.

    Raises:
        CheckpointError: the checkpoint cannot be read or the file cannot be written.
    """
    state = checkpoint.load_checkpoint(source)
    config, meta, trained = state["config"], state["meta"], state["meta"]["trained"]
    weights = state["ema"] or state["model"]
    prefix = "backbone."
    tensors = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
    tensors = {name: one for name, one in tensors.items() if not name.startswith(OUT_NORMS)}
    about = {
        _ABOUT: config["data"]["train"]["folder"],
        "classes": str(len(meta["class_names"])),
        "backbone": config["model"]["backbone"].get("name", config["model"]["backbone"]["type"]),
        "weights_source": meta["weights_source"],
        "preprocess": json.dumps(config["model"].get("preprocess")),
        **{name: f"{trained['metrics'][name]:.4f}" for name in ("top1", "top5") if name in trained["metrics"]},
        "steps": str(trained["steps"]),
        "config_sha256": hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        "versions": json.dumps(meta["versions"]),
    }
    checkpoint.save_weights(path, tensors, about)
    return path


def reported_by(source: str) -> str:
    """Summarize the metadata of a file of :func:`export_backbone`; empty for other sources."""
    from safetensors import safe_open

    path = Path(source)
    if path.suffix != ".safetensors" or not is_file(path):
        return ""
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
    if _ABOUT not in about:
        return ""
    accuracy = f", top-1 {about['top1']}" if "top1" in about else ""
    classes, steps = counted(int(about["classes"]), "class", "classes"), counted(int(about["steps"]), "step")
    return f"pre-trained on {about[_ABOUT]}: {classes}{accuracy}, {steps}"
