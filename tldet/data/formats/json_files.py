"""Reading of annotation files in JSON: their values, and messages that name an element."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tldet.coco.records import BLANK, read_json_text
from tldet.coco.text import parse
from tldet.data.formats.records import Dataset, ImageRecord, Tally, class_names, finite_number
from tldet.data.formats.tree import Tree
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


def read_images(
    name: str,
    tree: Tree,
    files: Sequence[Path],
    images_in: Callable[[Tree, Path, Any, Tally], Iterable[ImageRecord]],
) -> Dataset:
    """Read a dataset of JSON files that describe one or more images each.

    Args:
        name: name of the format.
        tree: its folder.
        files: its JSON files.
        images_in: yields the images of a file, given its values.

    Raises:
        DataError: a file cannot be read or is not JSON, or ``images_in`` raises it.
    """
    found = Dataset(name, tree.root, [], [])
    for path in files:
        found.images += images_in(tree, path, read_values(path), found.tally)
    found.classes = class_names(found.images)
    return found


def entries(values: Any, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a JSON list, with their location in the file.

    Raises:
        DataError: the values are no list of objects.
    """
    for row, value in enumerate(as_list(values, str(path), "the file")):
        yield f"[{row}]", as_dict(value, f"{path}: [{row}]")


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
