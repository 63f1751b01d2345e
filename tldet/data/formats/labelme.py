"""labelme: one JSON per image, with shapes in pixels (https://github.com/wkentaro/labelme)."""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tldet.data.formats.json_files import as_dict, as_list, opening, points_of, read_images
from tldet.data.formats.masks import empty_mask, rle_of
from tldet.data.formats.records import (
    Dataset,
    ImageRecord,
    Shape,
    Tally,
    bounds,
    label_text,
    polygon_of,
    side,
)
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.tree import Tree
from tldet.errors import DataError
from tldet.structures.image import Size

_NOT_OBJECTS = ("point", "points", "line", "linestrip")


def _find(tree: Tree) -> list[Path]:
    """Return the JSON files that hold ``shapes`` and ``imagePath``."""
    return tree.with_damaged({path: _kind(tree.start(path)) for path in tree.annotations(".json")}, "labelme")


def _kind(start: bytes) -> str | None:
    if opening(start) not in (b"{", b"["):
        return None
    return "labelme" if b'"shapes"' in start and (b'"shape_type"' in start or b'"imagePath"' in start) else "other"


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read one image per JSON; the folders state the splits.

    Raises:
        DataError: a file is damaged, or a shape is wrong; the message names it.
    """
    return read_images("labelme", tree, files, _images)


def _images(tree: Tree, path: Path, content: Any, tally: Tally) -> Iterator[ImageRecord]:
    values = as_dict(content, str(path))
    size = _size(values, path)
    name = values.get("imagePath")
    image = tree.find(name if isinstance(name, str) and name else path.stem, path)
    record = ImageRecord(image, path, "", tree.split(path.parent / "_"), size, [])
    record.shapes = _shapes(values, record, tally)
    yield record


def _size(values: dict[str, Any], path: Path) -> Size | None:
    height, width = values.get("imageHeight"), values.get("imageWidth")
    if height is None and width is None:
        return None
    return side(height, str(path), "imageHeight"), side(width, str(path), "imageWidth")


def _shapes(values: dict[str, Any], image: ImageRecord, tally: Tally) -> list[Shape]:
    """Read the shapes; polygons of one label and ``group_id`` are the parts of one object."""
    found: list[Shape] = []
    groups: dict[tuple[str, Any], Shape] = {}
    for number, value in enumerate(as_list(values.get("shapes"), str(image.source), "shapes")):
        who = f"{image.source}: shapes[{number}]"
        shape = _shape(as_dict(value, who), number, who, image, tally)
        if shape is None:
            continue
        group = value.get("group_id")
        if group is not None and shape.polygons and value.get("shape_type", "polygon") == "polygon":
            first = groups.setdefault((shape.label, group), shape)
            if first is not shape:
                first.polygons += shape.polygons
                first.box = bounds(first.polygons)
                tally.add(who, "polygon", "joined to an object by its group_id")
                continue
        found.append(shape)
    return found


def _shape(value: dict[str, Any], number: int, who: str, image: ImageRecord, tally: Tally) -> Shape | None:
    label = label_text(value.get("label"), who, "label")
    kind = value.get("shape_type") or "polygon"
    points = points_of(value.get("points"), who)
    location = f"shapes[{number}]"
    if kind in _NOT_OBJECTS:
        tally.add(who, "shape", f"of type {kind} left out")
        return None
    least = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2, "rotation": 3}.get(kind)
    if least is None:
        raise DataError(f"{who}: shape_type {kind!r} is unknown")
    if len(points) < least:
        raise DataError(f"{who}: a {kind} needs {least} points, not {len(points)}")
    if kind == "circle":
        tally.add(who, "circle", "read as the box around it")
        (x, y), radius = points[0], math.dist(points[0], points[1])
        return Shape(label, location, (x - radius, y - radius, x + radius, y + radius))
    if kind == "mask":
        return Shape(label, location, None, rle=_mask(value, points, image, who))
    around = bounds([polygon_of(points)])
    return Shape(label, location, around, [polygon_of(points)] if kind in ("polygon", "rotation") else [])


def _mask(value: dict[str, Any], points: Sequence[tuple[float, float]], image: ImageRecord, who: str) -> dict[str, Any]:
    """Decode a mask: a PNG of the pixels between two corners, both included."""
    from PIL import Image

    if image.size is None:
        raise DataError(f"{who}: a mask needs imageHeight and imageWidth")
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(value.get("mask")), validate=True)), formats=["PNG"]) as png:
            pixels = np.asarray(png.convert("L"))
    except (binascii.Error, ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        raise DataError(f"{who}: mask is not a PNG in base64") from None
    left, top = round(points[0][0]), round(points[0][1])
    whole = empty_mask(image.size, who)
    height, width = pixels.shape
    if left < 0 or top < 0 or top + height > image.size[0] or left + width > image.size[1]:
        raise DataError(f"{who}: the mask of {width} x {height} extends over the image")
    whole[top : top + height, left : left + width] = pixels
    return rle_of(whole, who)


register(Format("labelme", "labelme", _find, _read))
