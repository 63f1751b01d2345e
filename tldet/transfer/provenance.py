"""A pre-trained backbone as a file of its own that says where it comes from."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.errors import CheckpointError
from tldet.system.inputs import is_file
from tldet.transfer.safe_unpickle.archives import read_archive

ABOUT = "pretrained_on"  # the key by which such a file is known
OUT_NORMS = "out_norms."  # behind the maps that are given out: other ones in a detector
TASK = "classification"  # in the meta of pre-training's checkpoints
_LARGEST = 1 << 15  # pixels of an input side


def of_classifier(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is one of pre-training."""
    meta = state.get("meta")
    return isinstance(meta, Mapping) and meta.get("task") == TASK


def refuse_classifier(path: str | Path, state: Mapping[str, Any]) -> None:
    """A checkpoint must be one of a detector.

    Raises:
        CheckpointError: it is one of pre-training.
    """
    if of_classifier(state):
        raise CheckpointError(
            f"{path}: is a classifier of `tldet pretrain`, no detector: fine-tune one with --weights {path}"
        )


def check_meta(path: str | Path, state: Mapping[Any, Any]) -> None:
    """Check what a checkpoint states about its classes and, for a detector, about category ids and input size.

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
        raise _malformed(path, "meta.class_names", "must be a list of different names", names)
    if of_classifier(state):
        return
    if not _distinct(ids, int) or len(ids) != len(names):
        raise _malformed(path, "meta.category_ids", f"must be a list of {len(names)} different integers", ids)
    sides = list(size.values()) if isinstance(size, Mapping) and size.keys() == {"short", "long"} else []
    if not sides or not all(type(side) is int and 0 < side <= _LARGEST for side in sides):
        what = f"must be a dict of 'short' and 'long', integers from 1 to {_LARGEST}"
        raise _malformed(path, "meta.input", what, size)


def _distinct(values: Any, kind: type) -> bool:
    fitting = isinstance(values, (list, tuple)) and all(type(value) is kind for value in values)
    return fitting and 0 < len(values) == len(set(values))


def _malformed(path: str | Path, key: str, what: str, value: Any) -> CheckpointError:
    try:
        found = reprlib.repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        found = type(value).__name__
    return CheckpointError(f"{path}: {key} {what}, not {found}")


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
    """Write the backbone of a pre-training checkpoint as safetensors, with the averaged weights where there are any.

    Its metadata name the data, the number of classes, the starting weights, the accuracy, the steps, a hash of the
    config, and the versions.

    Raises:
        CheckpointError: the checkpoint cannot be read, or the file not be written.
    """
    state = checkpoint.load_checkpoint(source)
    config, meta, trained = state["config"], state["meta"], state["meta"]["trained"]
    weights = state["ema"] or state["model"]
    prefix = "backbone."
    tensors = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
    tensors = {name: one for name, one in tensors.items() if not name.startswith(OUT_NORMS)}
    about = {
        ABOUT: config["data"]["train"]["folder"],
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
    """What a file of :func:`export_backbone` says of itself, in a few words; empty for every other source."""
    from safetensors import safe_open

    path = Path(source)
    if path.suffix != ".safetensors" or not is_file(path):
        return ""
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
    if ABOUT not in told:
        return ""
    accuracy = f", top-1 {told['top1']}" if "top1" in told else ""
    return f"pre-trained on {told[ABOUT]}: {told['classes']} classes{accuracy}, {told['steps']} steps"
