"""Datasets of other formats under the rules of the COCO reader: sizes, classes, and boxes at the image border."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tldet.coco.checks import FLAT, MOVED, OUTSIDE, ClippedBoxes, clip_to_images
from tldet.data.checks.headers import read_header
from tldet.data.formats.records import Box, Dataset, ImageRecord, Shape, bounds
from tldet.data.formats.sizes import fill_sizes
from tldet.errors import DataError
from tldet.structures import rle
from tldet.system.inputs import is_file
from tldet.text import counted

_THREADS = 8


def complete(found: Dataset, classes: Sequence[str] | None = None, *, clip: bool = True) -> None:
    """Fill in missing sizes and boxes; leave out and count unusable objects.

    Args:
        found: the dataset, changed in place.
        classes: class names to use, in this order; None takes those of the dataset.
        clip: clip boxes that extend over the image border by more than a pixel.

    Raises:
        DataError: an image is described twice in a split, or no image or class is left.
    """
    if not found.images:
        raise DataError(f"{found.root}: contains no image")
    _refuse_twice(found.images)
    fill_sizes(found.images)
    if classes is not None:
        _restrict(found, classes)
    if not found.classes:
        raise DataError(f"{found.root}: contains no object, and states no class")
    for image in found.images:
        for shape in image.shapes:
            shape.box = shape.box or _bounds(image, shape)
    _apply_clipping(found, clip=clip)


def check_files(found: Dataset, *, skippable: bool = False) -> None:
    """Check that all images exist and have the stated size.

    Args:
        found: the dataset.
        skippable: the message mentions ``--on-bad-image``, which the command has.

    Raises:
        DataError: an image is missing or of another size; the message names the annotation file and element.
    """
    if missing := [image for image in found.images if not is_file(image.path)]:
        first = missing[0]
        raise DataError(
            f"{first.who()}: its image {first.path} is missing ({len(missing)} of "
            f"{counted(len(found.images), 'image')} missing); add them, or choose a folder with --images"
            f"{', or skip them with --on-bad-image skip' * skippable}"
        )
    with ThreadPoolExecutor(_THREADS) as pool:
        wrong = [one for one in pool.map(_size_problem, found.images) if one]
    if wrong:
        more = f" ({len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
        or_skip = ", or skip such images with --on-bad-image skip" if skippable else ""
        raise DataError(f"{wrong[0]}{more}; correct the annotations{or_skip}")


def _size_problem(image: ImageRecord) -> str:
    try:
        header = read_header(image.path)
    except DataError:  # the check of image files reports it
        return ""
    if header is None or header.upright == image.size:
        return ""
    assert image.size is not None
    (height, width), (tall, wide) = image.size, header.upright
    turned = " after the EXIF rotation" if header.orientation > 1 else ""
    return f"{image.who()}: states size {width} x {height}, but {image.path} is {wide} x {tall}{turned}"


def _refuse_twice(images: Sequence[ImageRecord]) -> None:
    seen: dict[tuple[str | None, Path], ImageRecord] = {}
    for image in images:
        first = seen.setdefault((image.split, image.path), image)
        if first is not image:
            raise DataError(f"{image.who()}: describes {image.path}, as does {first.who()}; remove one of them")


def _restrict(found: Dataset, classes: Sequence[str]) -> None:
    """Keep the objects of some classes; the others are counted by class."""
    if not set(classes) & set(found.classes):
        theirs = ", ".join(found.classes[:8]) or "none"
        raise DataError(f"{found.root}: has none of the classes in --classes (its classes: {theirs})")
    kept = set(classes)
    for image in found.images:
        for shape in image.shapes:
            if shape.label not in kept:
                found.tally.add(image.who(shape), "object", f"of class {shape.label!r} left out: not in --classes")
        image.shapes = [shape for shape in image.shapes if shape.label in kept]
    found.classes = list(classes)


def _bounds(image: ImageRecord, shape: Shape) -> Box:
    assert image.size is not None
    if shape.rle is None:
        return bounds(shape.polygons)
    x, y, width, height = rle.areas_and_boxes([rle.to_rle(shape.rle, image.size)])[1][0].tolist()
    return x, y, x + width, y + height


def clipped_boxes(found: Dataset) -> tuple[ClippedBoxes, list[tuple[ImageRecord, Shape]]]:
    """Clip the boxes of a prepared dataset to their images; return them with the image and shape of each."""
    rows = [(image, shape) for image in found.images for shape in image.shapes]
    boxes = np.array([shape.box for _, shape in rows], np.float64).reshape(-1, 4)
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    sizes = np.array([image.size for image, _ in rows], np.int32).reshape(-1, 2)
    with np.errstate(over="ignore"):
        return clip_to_images(boxes.astype(np.float32), xywh, sizes), rows


def _apply_clipping(found: Dataset, *, clip: bool) -> None:
    compared, rows = clipped_boxes(found)
    out: set[int] = set()
    for number in np.flatnonzero(~compared.kept | compared.moved).tolist():
        image, shape = rows[number]
        if compared.moved[number]:
            if clip:
                found.tally.add(image.who(shape), "box", MOVED, "boxes")
                clip_box(image, shape)
            continue
        found.tally.add(image.who(shape), "box", FLAT if compared.flat[number] else OUTSIDE, "boxes")
        out.add(id(shape))
    if out:
        for image in found.images:
            image.shapes = [shape for shape in image.shapes if id(shape) not in out]


def clip_box(image: ImageRecord, shape: Shape) -> None:
    """Clip a box to its image."""
    assert shape.box is not None
    assert image.size is not None
    (x0, y0, x1, y1), (height, width) = shape.box, image.size
    shape.box = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
