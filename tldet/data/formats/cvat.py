"""CVAT for images 1.1: one XML with all images (https://docs.cvat.ai/docs/other/xml_format)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tldet.data.formats.masks import empty_mask, rle_of
from tldet.data.formats.records import (
    Box,
    Dataset,
    ImageRecord,
    Shape,
    Tally,
    bounds,
    class_names,
    finite_number,
    label_text,
    ordered_box,
    polygon_of,
    side,
)
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.tree import Tree
from tldet.data.formats.xml import Node, read_xml, root_tag
from tldet.data.split_names import splits_in
from tldet.errors import DataError
from tldet.structures.image import Size
from tldet.text import counted

_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_NOT_OBJECTS = ("tag", "points", "polyline", "cuboid", "skeleton")


def _find(tree: Tree) -> list[Path]:
    """Return the XML files whose root is ``<annotations>``."""
    return tree.with_damaged({path: root_tag(tree.start(path)) for path in tree.annotations(".xml")}, "annotations")


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read the images of all files; the attribute ``subset`` or the name of the file states the split.

    Raises:
        DataError: an element lacks an attribute or has a wrong one; the message names its line.
    """
    found = Dataset("cvat", tree.root, [], [])
    for path in files:
        root = read_xml(path)
        if track := root.first("track"):
            raise DataError(f"{path}: line {track.line}: is of CVAT for video; export it as 'CVAT for images 1.1'")
        labels = _labels(root)
        for node in root.all("image"):
            image = _image(tree, path, node, found.tally)
            for shape in image.shapes:
                if labels and shape.label not in labels:
                    raise DataError(f"{image.who(shape)}: label {shape.label!r} is not in <labels>")
            found.images.append(image)
        found.classes += [name for name in labels if name not in found.classes]
    found.classes = found.classes or class_names(found.images)
    return found


def _labels(root: Node) -> list[str]:
    """Return the names in ``<labels>`` of the task, job or project."""
    names: list[str] = []
    waiting = [root.first("meta")]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if node.tag == "labels":
            names += [name for label in node.all("label") if (name := label.find("name")) and name not in names]
        else:
            waiting += node.children
    return names


def _image(tree: Tree, path: Path, node: Node, tally: Tally) -> ImageRecord:
    who = f"{path}: line {node.line}"
    name = node.attributes.get("name")
    if not name:
        raise DataError(f"{who}: <image> has no name")
    size = (side(node.attributes.get("height"), who, "height"), side(node.attributes.get("width"), who, "width"))
    stated = splits_in(node.attributes.get("subset", ""))
    split = next(iter(stated)) if len(stated) == 1 else tree.split(path)
    image = ImageRecord(tree.find(name, path), path, f"line {node.line}", split, size, [])
    for child in node.children:
        if child.tag in _READERS:
            image.shapes.append(_READERS[child.tag](path, child, size))
        elif child.tag in _NOT_OBJECTS:
            tally.add(f"{path}: line {child.line}", f"<{child.tag}>", "left out: not an object of detection")
        elif child.tag == "ellipse":
            tally.add(f"{path}: line {child.line}", "ellipse", "read as the box around it")
            image.shapes.append(_ellipse(path, child))
    return image


def _numbers(node: Node, who: str, keys: Sequence[str]) -> list[float]:
    return [finite_number(node.attributes.get(key), who, key) for key in keys]


def _label(node: Node, who: str) -> str:
    return label_text(node.attributes.get("label"), who, "label")


def _box(path: Path, node: Node, _: Size) -> Shape:
    who = f"{path}: line {node.line}"
    box = ordered_box(_numbers(node, who, _CORNERS), who, _CORNERS)
    angle = finite_number(node.attributes.get("rotation") or 0, who, "rotation")
    polygons = [rotated(box, angle)] if angle else []
    return Shape(_label(node, who), f"line {node.line}", bounds(polygons) if angle else box, polygons)


def rotated(box: Box, degrees: float) -> list[float]:
    """Return the polygon of a box that is rotated clockwise about its center."""
    x0, y0, x1, y1 = box
    cx, cy, angle = (x0 + x1) / 2, (y0 + y1) / 2, math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return polygon_of(
        [(cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos) for x, y in corners]
    )


def _polygon(path: Path, node: Node, _: Size) -> Shape:
    who = f"{path}: line {node.line}"
    points = [one.split(",") for one in node.attributes.get("points", "").split(";") if one.strip()]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise DataError(f"{who}: points must be 'x,y;x,y;...' with at least 3 points")
    polygon = [finite_number(value, who, "points") for point in points for value in point]
    return Shape(_label(node, who), f"line {node.line}", bounds([polygon]), [polygon])


def _ellipse(path: Path, node: Node) -> Shape:
    who = f"{path}: line {node.line}"
    cx, cy, rx, ry = _numbers(node, who, ("cx", "cy", "rx", "ry"))
    angle = math.radians(finite_number(node.attributes.get("rotation") or 0, who, "rotation"))
    half_x = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    half_y = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return Shape(_label(node, who), f"line {node.line}", (cx - half_x, cy - half_y, cx + half_x, cy + half_y))


def _mask(path: Path, node: Node, size: Size) -> Shape:
    """Read a mask: run lengths of rows within a box, background first."""
    who = f"{path}: line {node.line}"
    left, top = (int(value) for value in _numbers(node, who, ("left", "top")))
    width, height = (side(node.attributes.get(key), who, key) for key in ("width", "height"))
    counts = [finite_number(value, who, "rle") for value in node.attributes.get("rle", "").split(",") if value.strip()]
    if min(counts, default=-1) < 0 or sum(counts) != width * height:
        raise DataError(
            f"{who}: rle must hold the {counted(width * height, 'pixel')} of {width} x {height}, not {sum(counts):g}"
        )
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise DataError(f"{who}: the mask extends over the image of {size[1]} x {size[0]}")
    lengths = np.array(counts, np.int64)
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
    mask = empty_mask(size, who)
    mask[top : top + height, left : left + width] = inside
    return Shape(_label(node, who), f"line {node.line}", None, rle=rle_of(mask, who))


_READERS = {"box": _box, "polygon": _polygon, "mask": _mask}
register(Format("cvat", "CVAT for images", _find, _read))
