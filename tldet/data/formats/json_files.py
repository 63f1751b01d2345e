"""Reading of annotation files in JSON: their values, and messages that name an element."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tldet.coco.records import BLANK, read_json_text
from tldet.coco.text import parse
from tldet.data.formats.records import finite_number
from tldet.errors import DataError


def opening(start: bytes) -> bytes:
    """Return the first character of a JSON text, given the first bytes of its file."""
    return start.lstrip(BLANK)[:1]


def read_values(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    return parse(read_json_text(path), str(path))


def as_dict(value: Any, who: str) -> dict[str, Any]:
    """Return ``value`` if it is a JSON object.

    Raises:
        DataError: it is not.
    """
    if not isinstance(value, dict):
        raise DataError(f"{who}: must be an object, not {type(value).__name__}")
    return value


def as_list(value: Any, who: str, key: str) -> list[Any]:
    """Return ``value`` if it is a list; an empty list for None.

    Raises:
        DataError: it is neither.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(f"{who}: {key} must be a list, not {type(value).__name__}")
    return value


def points_of(value: Any, who: str, key: str = "points") -> list[tuple[float, float]]:
    """Convert a list of [x, y] pairs to points.

    Raises:
        DataError: it is not a list of pairs of numbers.
    """
    found = []
    for row, point in enumerate(as_list(value, who, key)):
        if not isinstance(point, list) or len(point) != 2:
            raise DataError(f"{who}: {key}[{row}] must be [x, y]")
        found.append((finite_number(point[0], who, f"{key}[{row}] x"), finite_number(point[1], who, f"{key}[{row}] y")))
    return found
