"""Metadata inside exported detectors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast, get_args

from .errors import CheckpointError, counted
from .images import DIVISOR, MAX_PIXELS
from .masks import Paste

METADATA_KEY = "tldet"  # key of the metadata in a file
METADATA_VERSION = 1
_LIMIT = f"at most {MAX_PIXELS / 1e6:.4g} million pixels"
_FIELDS = {"format": int, "kind": str, "class_names": list, "category_ids": list, "input": dict, "precision": str}


def parse_metadata(text: str | None, path: Path) -> dict[str, Any]:
    """Parse the metadata of a file.

    Raises:
        CheckpointError: the metadata is missing or malformed, or the file is not a complete detector.
    """
    try:
        found: Any = json.loads(text) if text else None
    except (ValueError, RecursionError):
        found = None
    metadata = cast(dict[str, Any], found) if isinstance(found, dict) else {}
    if any(type(metadata.get(key)) is not kind for key, kind in _FIELDS.items()) or metadata["format"] < 1:
        raise CheckpointError(f"{path}: is not a detector exported by tldet (no metadata {METADATA_KEY!r})")
    if metadata["format"] > METADATA_VERSION:
        raise CheckpointError(
            f"{path}: has metadata version {metadata['format']}, but this version of tldet reads {METADATA_VERSION}; "
            "update tldet"
        )
    if metadata["kind"] != "detector":
        raise CheckpointError(f"{path}: was exported with --raw, so its outputs are not detections; export without it")
    if problem := _problem(metadata):
        raise CheckpointError(f"{path}: {problem}; export the detector again")
    return metadata


def _problem(metadata: dict[str, Any]) -> str | None:
    """Return a description of the first malformed value; None if all are valid."""
    names, ids = metadata["class_names"], metadata["category_ids"]
    if not names:
        return "has no class names"
    if len(names) != len(ids):
        return f"has {counted(len(names), 'class name')}, but {counted(len(ids), 'category id')}"
    if any(not isinstance(name, str) for name in names) or any(
        type(one) is not int or abs(one) >= 2**63 for one in ids
    ):
        return "has class names that are not text, or category ids that are not 64-bit integers"
    sides = metadata["input"]
    if set(sides) != {"short", "long"} or not (_sides([sides["short"]] * 2) and _sides([sides["long"]])):
        return f"has input {metadata['input']!r} in its metadata; it must be short and long in pixels"
    size = metadata.get("size")
    if size is not None and not (isinstance(size, list) and len(size) == 2 and _sides(size, DIVISOR)):
        return f"has size {size!r} in its metadata; it must be two multiples of {DIVISOR}, {_LIMIT}, or null"
    if metadata.get("batch") not in (None, 1):
        return f"has batch {metadata['batch']!r} in its metadata; it must be 1 or null"
    masks = metadata.get("masks")
    if masks is not None and not _mask_settings(masks):
        return (
            f"has masks {masks!r} in its metadata; it must be a threshold from 0 to 1 and a known paste mode, or null"
        )
    scores = metadata.get("scores")
    if scores is not None and not isinstance(scores, dict):
        return f"has scores {scores!r} in its metadata; it must be thresholds and temperature, or null"
    return None


def _sides(values: Any, divisor: int = 1) -> bool:
    valid = all(type(one) is int and one >= 1 and one % divisor == 0 for one in values)
    return valid and math.prod(values) <= MAX_PIXELS


def _mask_settings(masks: Any) -> bool:
    if not isinstance(masks, dict) or set(masks) != {"threshold", "paste"}:
        return False
    threshold = masks["threshold"]
    return type(threshold) in (int, float) and 0 <= threshold <= 1 and masks["paste"] in get_args(Paste)
