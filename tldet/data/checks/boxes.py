"""Checks of boxes: size, position in the image, and duplicate annotations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import LEAST_SIDE, UNIT, clip_to_images
from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]
_DUPLICATE = 0.9  # IoU above which two boxes of one class are one object
_COVERS = 1.0  # largest distance in pixels of a covering box to the image border


def check_extents(records: Records) -> Iterator[Finding]:
    """Yield boxes that are empty, too large, normalized, outside their image, across its border, or cover it."""
    known: _Bools = np.asarray((records.object_sizes > 0).all(1), np.bool_)
    boxes, sizes = records.boxes, np.where(known[:, None], records.object_sizes, np.iinfo(np.int32).max)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    with np.errstate(over="ignore"):
        single = corners.astype(np.float32)
    found = clip_to_images(single, boxes, sizes.astype(np.int32))
    huge: _Bools = np.asarray(~np.isfinite(single).all(1), np.bool_)
    yield from _each(records, "box-not-finite", huge, "is too large for float32", "correct it")
    fraction = ~found.flat & known & (np.abs(boxes) <= UNIT).all(1) & (boxes != np.round(boxes)).any(1)
    fraction &= sizes.max(1) > LEAST_SIDE
    yield from _each(records, "box-zero", found.flat, "has zero width or height", "correct it (not used for training)")
    yield from _each(records, "box-normalized", fraction, "lies within 0..1", "convert it to pixels")
    yield from _each(
        records, "box-outside", found.outside, "lies outside its image", "correct it (not used for training)"
    )
    moved = found.moved & ~fraction & ~huge
    yield from _each(records, "box-over-border", moved, "extends beyond the image border", "clipped for training")
    yield from _each(records, "box-covers-image", known & covering(corners, sizes), "covers its image", "")


def covering(corners: NDArray[np.float64], sizes: _Ints) -> _Bools:
    """Return (A,) bool: True for a box (x0, y0, x1, y1) that covers its image up to a pixel at each border."""
    ends = sizes[:, ::-1] - _COVERS
    return np.asarray((corners[:, :2] <= _COVERS).all(1) & (corners[:, 2:] >= ends).all(1), np.bool_)


def _each(records: Records, code: str, rows: _Bools, text: str, fix: str) -> Iterator[Finding]:
    for row in np.flatnonzero(rows).tolist():
        image = records.sizes[int(records.positions[row])]
        box = [round(value, 2) for value in records.boxes[row].tolist()]
        size = f" of {image[1]} x {image[0]} pixels" if "image" in text else ""
        yield records.of_object(code, row, f"bbox {box} {text}{size}", fix=fix)


def check_repeated(records: Records) -> Iterator[Finding]:
    """Yield duplicate annotations: boxes of one class with an IoU above 0.9, and equal boxes of two classes."""
    for first, second, iou in zip(*(column.tolist() for column in overlapping(records, _DUPLICATE)), strict=True):
        same = bool((records.boxes[first] == records.boxes[second]).all())
        one, two = (records.class_names[records.labels[row]] for row in (first, second))
        other = f"annotation {records.ids[first]}"
        if one != two:
            if same:
                text = f"class {two!r}, but the same box as {other} of class {one!r}"
                yield records.of_object("box-two-classes", second, text, fix="remove one of them")
            continue
        outlines = len(records.texts) == 0 or records.texts[first] == records.texts[second]
        exact = same and outlines
        text = f"duplicate of {other} of class {one!r}" + ("" if exact else f" (IoU {iou:.3f})")
        change = records.change(second, None) if exact else ()
        yield records.of_object("box-repeated", second, text, fix="remove one of them", repairs=change)


def overlapping(records: Records, least: float) -> tuple[_Ints, _Ints, NDArray[np.float64]]:
    """Find pairs of boxes on one image with an IoU above ``least``; crowd regions and empty boxes do not count.

    Boxes are sorted by image and left side. Each is compared with the following ones until their left sides are too
    far away for the IoU.

    Returns:
        (P,) rows of the earlier objects, (P,) rows of the later ones in ascending order, (P,) IoU.
    """
    usable = np.flatnonzero(~records.crowd & (records.boxes[:, 2:] > 0).all(1))
    order = usable[np.lexsort((records.boxes[usable, 0], records.positions[usable]))]
    boxes, images = records.boxes[order], records.positions[order]
    reach = boxes[:, 0] + (1 - least) / least * boxes[:, 2]
    alive, pairs = np.arange(len(order) - 1), []
    for step in range(1, len(order)):
        alive = alive[alive + step < len(order)]
        later = alive + step
        near = (images[later] == images[alive]) & (boxes[later, 0] <= reach[alive])
        alive = alive[near]
        if not len(alive):
            break
        iou = _iou(boxes[alive], boxes[alive + step])
        hit = iou > least
        pairs.append((order[alive[hit]], order[alive[hit] + step], iou[hit]))
    if not pairs:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    one, two, found = (np.concatenate(column) for column in zip(*pairs, strict=True))
    first, second = np.minimum(one, two), np.maximum(one, two)
    sort = np.lexsort((first, second))
    return first[sort], second[sort], found[sort]


def _iou(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU (N,) of boxes x, y, width, height."""
    low = np.maximum(one[:, :2], two[:, :2])
    high = np.minimum(one[:, :2] + one[:, 2:], two[:, :2] + two[:, 2:])
    inside = np.maximum(high - low, 0).prod(1)
    return np.asarray(inside / (one[:, 2:].prod(1) + two[:, 2:].prod(1) - inside))
