"""COCO JSON of a prepared dataset: ids from 1, images in the order of file names, objects by class and box."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tldet.data.formats.records import ImageRecord, Shape, pairs
from tldet.structures import rle

_DIGITS = 9  # after the point; removes the rounding errors of differences


def image_root(images: Sequence[ImageRecord]) -> Path:
    """Return the folder that holds all images, directly or in subfolders."""
    return Path(os.path.commonpath([os.path.abspath(image.path.parent) for image in images]))  # noqa: PTH100


def names_below(root: Path, images: Sequence[ImageRecord]) -> list[str]:
    """Return the paths of images below a folder, with forward slashes."""
    return [Path(os.path.relpath(image.path, root)).as_posix() for image in images]


def coco_values(
    images: Sequence[ImageRecord],
    names: Sequence[str],
    classes: Sequence[str],
    description: str,
    category_ids: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the contents of a COCO JSON.

    Args:
        images: images of a prepared dataset; see :func:`~tldet.data.formats.prepare.complete`.
        names: file name of each image.
        classes: class names.
        description: text of ``info``.
        category_ids: ids of the classes in a COCO JSON, to keep these, and the ids of images and objects; None numbers
            all from 1.
    """
    ids, own_ids = {name: number for number, name in enumerate(classes, start=1)}, bool(category_ids)
    if category_ids and set(classes) <= set(category_ids):
        ids = {name: category_ids[name] for name in classes}
    annotations: list[dict[str, Any]] = []
    records = []
    for number, (image, name) in enumerate(zip(images, names, strict=True), start=1):
        assert image.size is not None
        height, width = image.size
        image_id = image.id if own_ids and image.id is not None else number
        records.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for shape in sorted(image.shapes, key=lambda one: (ids[one.label], one.box)):
            own_id = shape.id if own_ids and shape.id is not None else len(annotations) + 1
            own = {"id": own_id, "image_id": image_id, "category_id": ids[shape.label]}
            annotations.append({**own, **_object(image, shape)})
    return {
        "info": {"description": description},
        "images": records,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }


def _object(image: ImageRecord, shape: Shape) -> dict[str, Any]:
    assert shape.box is not None
    x0, y0, x1, y1 = shape.box
    width, height = round(x1 - x0, _DIGITS), round(y1 - y0, _DIGITS)
    outline: Any = shape.polygons if shape.rle is None else shape.rle
    return {
        "bbox": [x0, y0, width, height],
        "area": area_of(image, shape),
        "iscrowd": int(shape.crowd),
        "segmentation": outline,
        "source": image.who(shape),
    }


def area_of(image: ImageRecord, shape: Shape) -> float:
    """Return the stated area of an object, that of its mask, or that of its box, in square pixels."""
    assert image.size is not None
    assert shape.box is not None
    if shape.area is not None:
        return shape.area
    if shape.rle is not None:
        return float(rle.areas_and_boxes([rle.to_rle(shape.rle, image.size)])[0][0])
    inside = sum(_polygon_area(one) for one in shape.polygons)
    x0, y0, x1, y1 = shape.box
    return round(inside or (x1 - x0) * (y1 - y0), _DIGITS)


def _polygon_area(polygon: Sequence[float]) -> float:
    points = list(pairs(polygon))
    following = [*points[1:], points[0]]
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, following, strict=True))) / 2
