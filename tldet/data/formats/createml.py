"""CreateML: one JSON list for many images, boxes by center and size in pixels (Apple, Create ML)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tldet.data.formats.json_files import as_dict, as_list, entries, opening, read_images
from tldet.data.formats.records import Dataset, ImageRecord, Shape, Tally, finite_number, label_text
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.tree import Tree
from tldet.errors import DataError

_KEYS = ("x", "y", "width", "height")
_NAMES = ("image", "imagefilename", "imageName", "filename")


def _find(tree: Tree) -> list[Path]:
    """Return the JSON lists whose objects have ``coordinates``."""
    return [path for path in tree.annotations(".json") if _is_createml(tree.start(path))]


def _is_createml(start: bytes) -> bool:
    return opening(start) == b"[" and b'"annotation' in start and b'"coordinates"' in start


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read the images of all files; names of files and folders state the splits.

    Raises:
        DataError: a file is damaged, or an entry is wrong; the message names it.
    """
    return read_images("createml", tree, files, _images)


def _images(tree: Tree, path: Path, content: Any, _: Tally) -> Iterator[ImageRecord]:
    return (_image(tree, path, entry, value) for entry, value in entries(content, path))


def _image(tree: Tree, path: Path, entry: str, value: dict[str, Any]) -> ImageRecord:
    who = f"{path}: {entry}"
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str) and value[key]), None)
    if name is None:
        raise DataError(f"{who}: has no 'image' with the file name")
    image = ImageRecord(tree.find(name, path), path, entry, tree.split(path), None, [])
    key = "annotation" if "annotation" in value else "annotations"
    for number_, one in enumerate(as_list(value.get(key), who, key)):
        location = f"{entry}.{key}[{number_}]"
        image.shapes.append(_shape(as_dict(one, f"{path}: {location}"), location, f"{path}: {location}"))
    return image


def _shape(value: dict[str, Any], location: str, who: str) -> Shape:
    label = label_text(value.get("label"), who, "label")
    found = as_dict(value.get("coordinates"), f"{who}.coordinates")
    x, y, width, height = (finite_number(found.get(key), who, key) for key in _KEYS)
    if width < 0 or height < 0:
        raise DataError(f"{who}: {'width' if width < 0 else 'height'} is negative")
    return Shape(label, location, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


register(Format("createml", "CreateML", _find, _read))
