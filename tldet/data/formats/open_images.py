"""Open Images: CSV with one row per box, corners relative to the image size.

Source: https://storage.googleapis.com/openimages/web/download_v7.html.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tldet.data.formats.records import (
    RELATIVE_TOLERANCE,
    Dataset,
    ImageRecord,
    Shape,
    class_names,
    finite_number,
    label_text,
    ordered_box,
)
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.sizes import fill_sizes
from tldet.data.formats.tree import Tree
from tldet.errors import DataError
from tldet.system.inputs import read_file

_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_CORNERS = ("XMin", "YMin", "XMax", "YMax")


def _find(tree: Tree) -> list[Path]:
    """Return the CSV files with the columns of boxes."""
    return [path for path in tree.annotations(".csv") if _has_boxes(tree.start(path))]


def _has_boxes(start: bytes) -> bool:
    header = start.decode("utf-8-sig", errors="replace").split("\n", 1)[0]
    return {"ImageID", "LabelName"} <= {name.strip() for name in header.split(",")}


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read the boxes of all files; the name of a file states the split, ``class-descriptions*.csv`` the class names.

    Raises:
        DataError: a row is wrong, or an image is missing (its size is needed); the message names the line.
    """
    found = Dataset("open_images", tree.root, [], [])
    names = _descriptions(tree, files)
    for path in files:
        images: dict[str, ImageRecord] = {}
        for line, row in _rows(path):
            image = _image(tree, path, line, row, images)
            image.shapes.append(_shape(row, f"{path}: line {line}", line, names))
        found.images += images.values()
    fill_sizes(found.images)
    for image in found.images:
        for shape in image.shapes:
            assert image.size is not None
            assert shape.box is not None
            (height, width), (x0, y0, x1, y1) = image.size, shape.box
            shape.box = (x0 * width, y0 * height, x1 * width, y1 * height)
    found.classes = class_names(found.images)
    return found


def _image(
    tree: Tree, path: Path, line: int, row: Mapping[str, str | None], images: dict[str, ImageRecord]
) -> ImageRecord:
    name = label_text(row["ImageID"], f"{path}: line {line}", "ImageID")
    if name not in images:
        images[name] = ImageRecord(tree.find(name, path), path, f"line {line}", tree.split(path), None, [])
    return images[name]


def _shape(row: Mapping[str, str | None], who: str, line: int, names: Mapping[str, str]) -> Shape:
    label = label_text(row["LabelName"], who, "LabelName")
    values = [finite_number(row[key], who, key) for key in _CORNERS]
    for key, value in zip(_CORNERS, values, strict=True):
        if not -RELATIVE_TOLERANCE <= value <= 1 + RELATIVE_TOLERANCE:
            raise DataError(f"{who}: {key} is {value:g}; it must lie within 0..1, relative to the image size")
    box = ordered_box(values, who, _CORNERS)
    return Shape(names.get(label, label), f"line {line}", box, crowd=(row.get("IsGroupOf") or "0").strip() == "1")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Yield line number and values by column."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), skipinitialspace=True)
    header = [name.strip() for name in reader.fieldnames or []]
    if missing := [key for key in _NEEDED if key not in header]:
        raise DataError(f"{path}: line 1: has no column {missing[0]}")
    reader.fieldnames = header
    try:
        for row in reader:
            if None in row or None in row.values():  # further values have the key None
                raise DataError(f"{path}: line {reader.line_num}: has another number of values than the header")
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: is not CSV ({error})") from None


def _text(path: Path) -> str:
    try:
        return read_file(path, DataError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def _descriptions(tree: Tree, files: Sequence[Path]) -> dict[str, str]:
    """Return class names by label, from ``class-descriptions*.csv`` in the source or beside a file."""
    folders = {path.parent for path in files} | {tree.root}
    found: dict[str, str] = {}
    for path in sorted({one for folder in folders for one in folder.glob("class-descriptions*.csv")}):
        for row in csv.reader(io.StringIO(_text(path), newline="")):
            if len(row) >= 2 and row[0] != "LabelName":
                found[row[0].strip()] = row[1].strip()
    return found


register(Format("open_images", "Open Images", _find, _read))
