"""COCO results: records of a file, and writing them as JSON or as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tldet.errors import DataError
from tldet.system.output import replacing, write_json

_COLUMNS = ("file_name", "image_id", "category_id", "category_name", "score", "x", "y", "width", "height")
Number = int | float  # an id written as 7.0 is the id 7


class Detection(msgspec.Struct):
    """One record of a COCO results file."""

    image_id: Number
    category_id: Number
    score: float
    bbox: list[float] | UnsetType = UNSET
    file_name: str | None = None
    category_name: str | None = None


class MaskDetection(Detection):
    """One record of a COCO results file, with its mask."""

    segmentation: Any = None


def write_csv(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write COCO results as a table; boxes are x, y, width and height in pixels.

    Raises:
        DataError: the file cannot be written.
    """
    with replacing(path, sync=False) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text)
        writer.writerow(_COLUMNS)
        for record in records:
            writer.writerow([*(record[name] for name in _COLUMNS[:5]), *record["bbox"]])
        text.flush()
        text.detach()


def write_results(path: str | PathLike[str], records: Sequence[Mapping[str, Any]]) -> None:
    """Write COCO results as JSON or as a table, by the extension of the file.

    Args:
        path: output file, ``.json`` or ``.csv``.
        records: COCO results with ``file_name`` and ``category_name``, which only the table contains.

    Raises:
        DataError: the file cannot be written, or has another extension.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        write_csv(path, records)
    elif path.suffix.lower() == ".json":
        named = ("file_name", "category_name")
        write_json(path, [{key: value for key, value in record.items() if key not in named} for record in records])
    else:
        raise DataError(f"{path}: detections are saved as .json (COCO results) or .csv; choose one of them")
