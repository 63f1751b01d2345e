"""Recognition of COCO object annotations by file content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tldet.coco.records import read_json_text
from tldet.coco.text import top_level
from tldet.errors import DataError
from tldet.system.cache import remembered
from tldet.system.inputs import real_path, require_file

_NEEDED = ("images", "annotations", "categories")
CACHED_FROM = 1 << 25  # bytes; the result for a larger file is cached, since it has to be read in full
_VERSION = 2  # version of the cached results


@dataclass(frozen=True)
class Content:
    """Result of :func:`examine`.

    Attributes:
        problem: why the file cannot be used as object annotations; empty if it can.
        damaged: the file is not even JSON (missing, empty, cut off, an HTML page, a Git LFS pointer, ...).
    """

    problem: str = ""
    damaged: bool = False


def examine(path: Path) -> Content:
    """Check if a file holds COCO object annotations, in any encoding and with any name."""
    try:
        status = require_file(path, DataError, "")
    except DataError as error:
        return Content(str(error).removeprefix(": "), damaged=True)
    if status.st_size < CACHED_FROM:
        return _examine(path)
    key = f"{_VERSION} {real_path(path)} {status.st_size} {status.st_mtime_ns}"
    problem, damaged = remembered("content", key, lambda: [*vars(_examine(path)).values()])[0]
    return Content(str(problem), bool(damaged))


def _examine(path: Path) -> Content:
    try:
        text = read_json_text(path, "")
        if text.lstrip().startswith(b"["):
            return Content("is a list (detections?), not an object with images, annotations and categories")
        fields = top_level(text, "")
    except DataError as error:
        return Content(str(error).removeprefix(": "), damaged=True)
    if missing := [key for key in _NEEDED if key not in fields]:
        return Content(f"has no {' and no '.join(missing)}")
    keys = _first_keys(bytes(memoryview(fields["annotations"])[: 1 << 20]))
    if "segments_info" in keys:
        return Content("contains panoptic annotations (segments_info), not objects")
    if keys and not keys & {"bbox", "segmentation"}:
        return Content("contains no objects: its first annotation has neither bbox nor segmentation (captions?)")
    return Content()


def _first_keys(text: bytes) -> set[str]:
    """Return the keys of a list's first record, given its start; none if it is no list or the record no object."""
    start = text.decode(errors="ignore").lstrip()
    if not start.startswith("["):
        return set()
    try:
        record, _ = json.JSONDecoder().raw_decode(start[1:].lstrip())
    except (ValueError, RecursionError):
        return set()
    return set(record) if isinstance(record, dict) else set()
