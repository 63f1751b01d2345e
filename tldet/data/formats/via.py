"""VGG Image Annotator: JSON with regions per image, versions 1 and 2 (https://www.robots.ox.ac.uk/~vgg/software/via/)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tldet.data.formats.json_files import as_dict, as_list, opening, read_images
from tldet.data.formats.records import (
    Dataset,
    ImageRecord,
    Shape,
    Tally,
    bounds,
    finite_number,
    label_text,
)
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.tree import Tree
from tldet.errors import DataError

UNNAMED = "object"  # class of regions without an attribute
_NUMBERS = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
}
_NOT_OBJECTS = ("point", "polyline", "line")


def _find(tree: Tree) -> list[Path]:
    """Return the JSON files that map images to regions with ``shape_attributes``."""
    return [path for path in tree.annotations(".json") if _is_via(tree.start(path))]


def _is_via(start: bytes) -> bool:
    regions = b'"shape_attributes"' in start or b'"_via_img_metadata"' in start or b'"regions"' in start
    return opening(start) == b"{" and regions and b'"filename"' in start


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read the images of all files; names of files and folders state the splits.

    Raises:
        DataError: a file is damaged, or a region is invalid; the message names it.
    """
    return read_images("via", tree, files, _images)


def _images(tree: Tree, path: Path, content: Any, tally: Tally) -> Iterator[ImageRecord]:
    values = as_dict(content, str(path))
    for key, value in as_dict(values.get("_via_img_metadata", values), f"{path}: _via_img_metadata").items():
        who = f"{path}: {key}"
        name = label_text(as_dict(value, who).get("filename"), who, "filename")
        image = ImageRecord(tree.find(name, path), path, key, tree.split(path), None, [])
        image.shapes = _shapes(value, key, who, tally)
        yield image


def _shapes(value: dict[str, Any], key: str, who: str, tally: Tally) -> list[Shape]:
    """Read the regions of an image: a list, or in version 1 an object with numbered keys."""
    regions = value.get("regions")
    numbered = list(regions.values()) if isinstance(regions, dict) else as_list(regions, who, "regions")
    found = []
    for number, region in enumerate(numbered):
        location = f"{key} regions[{number}]"
        one = as_dict(region, f"{who} regions[{number}]")
        outline = as_dict(one.get("shape_attributes"), f"{who} regions[{number}] shape_attributes")
        shape = _shape(outline, location, f"{who} regions[{number}]", tally)
        if shape is not None:
            shape.label = _label(one.get("region_attributes"), f"{who} regions[{number}]", tally)
            found.append(shape)
    return found


def _shape(outline: dict[str, Any], location: str, who: str, tally: Tally) -> Shape | None:
    kind = outline.get("name")
    if kind in _NOT_OBJECTS:
        tally.add(who, "region", f"of shape {kind} left out")
        return None
    if kind == "polygon":
        xs, ys = (as_list(outline.get(f"all_points_{axis}"), who, f"all_points_{axis}") for axis in "xy")
        if len(xs) != len(ys) or len(xs) < 3:
            raise DataError(f"{who}: a polygon needs three or more all_points_x and as many all_points_y")
        points = [finite_number(one, who, "all_points") for pair in zip(xs, ys, strict=True) for one in pair]
        return Shape("", location, bounds([points]), [points])
    if kind not in _NUMBERS:
        raise DataError(f"{who}: shape name {str(kind)[:40]!r} is unknown")
    x, y, width, height = (finite_number(outline.get(name), who, name) for name in _NUMBERS[kind])
    if min(width, height) < 0:
        raise DataError(f"{who}: {_NUMBERS[kind][2]} and {_NUMBERS[kind][3]} must not be negative")
    if kind == "rect":
        return Shape("", location, (x, y, x + width, y + height))
    tally.add(who, kind, "read as the box around it")
    return Shape("", location, (x - width, y - height, x + width, y + height))


def _label(attributes: Any, who: str, tally: Tally) -> str:
    """Return the class: the value of the only attribute, or of the one called class, label, name or type."""
    found = {key: value for key, value in as_dict(attributes or {}, who).items() if isinstance(value, str) and value}
    if not found:
        tally.add(who, "region", f"without an attribute read as class {UNNAMED!r}")
        return UNNAMED
    known = [value for key, value in found.items() if key.lower() in ("class", "label", "name", "type")]
    if len(found) > 1 and len(known) != 1:
        raise DataError(f"{who}: has several attributes ({', '.join(found)}); name the one with the class 'class'")
    return label_text(known[0] if known else next(iter(found.values())), who, "region_attributes")


register(Format("via", "VGG Image Annotator", _find, _read))
