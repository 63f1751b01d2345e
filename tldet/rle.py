"""Run-length masks: what COCO's ``segmentation`` field may hold, and what is measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # (height, width)
Rle = dict[str, Any]


def is_none(segmentation: Any) -> bool:
    """Whether there is no mask: ``null``, ``[]`` and ``[[]]``."""
    return not segmentation or segmentation == [[]]


def problem_with(segmentation: Any, size: Size) -> str | None:
    """Why ``segmentation`` is no mask of a picture of ``size``, or None when it is one."""
    if is_none(segmentation):
        return "has no segmentation"
    try:
        return (
            _polygon_problem(segmentation, size) if isinstance(segmentation, list) else _rle_problem(segmentation, size)
        )
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return "has a segmentation that is neither a list of polygons nor an RLE with size and counts"


def _polygon_problem(polygons: list[Any], size: Size) -> str | None:
    for polygon in polygons:
        given = np.array(polygon)
        points = given.astype(np.float64)
        if given.dtype.kind == "U" or points.ndim != 1 or len(points) < 6 or len(points) % 2:
            return "has a polygon that is not a flat list of at least three points [x, y, x, y, ...]"
        if not np.isfinite(points).all():
            return "has a polygon with a number that is not finite"
    return "has a polygon, but its picture has no width and height" if 0 in size else None


def _rle_problem(rle: Rle, size: Size) -> str | None:
    height, width = rle["size"]
    if 0 not in size and (height, width) != size:
        return f"has a mask of size {[height, width]}, its picture has {list(size)} (height, width)"
    counts = rle["counts"]
    if isinstance(counts, list):
        runs = np.array(counts, dtype=np.int64)
    else:
        runs = run_lengths(counts if isinstance(counts, bytes) else counts.encode())
    if (runs < 0).any() or runs.sum() != height * width:
        return f"has an RLE whose counts do not fill its size {[height, width]}"
    return None


def run_lengths(counts: bytes) -> NDArray[np.int64]:
    """The run lengths in a compressed RLE (``rleFrString`` of COCO's maskApi.c).

    Each number is written in groups of 5 bits, lowest first, as characters from 48; bit 6 says that more follow. From
    the fourth on it is the difference to the number before the last one.

    Raises:
        ValueError: ``counts`` ends in the middle of a number or has other characters.
    """
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((digits & 0x20) == 0)
    if (digits < 0).any() or (digits >= 64).any() or not len(ends) or ends[-1] != len(digits) - 1:
        raise ValueError("not a compressed RLE")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((digits & 0x1F) << shifts, starts)
    values -= np.where(digits[ends] & 0x10, np.int64(1) << (5 * lengths), 0)  # a negative difference
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def to_rle(segmentation: Any, size: Size) -> Rle:
    """Polygons or an uncompressed RLE as a compressed RLE, as ``COCO.annToRLE`` of pycocotools does it."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        rle: Rle = mask.merge(mask.frPyObjects(segmentation, *size))
        return rle
    if isinstance(segmentation["counts"], list):
        compressed: Rle = mask.frPyObjects(segmentation, *segmentation["size"])
        return compressed
    return dict(segmentation)


def areas_and_boxes(rles: Sequence[Rle]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) pixels covered and (N, 4) xywh bounds of compressed RLEs."""
    from pycocotools import mask

    # `mask.area` of 256 or more RLEs raises OverflowError under numpy 2 (seen with pycocotools 2.0.11)
    chunks = [list(rles[start : start + 255]) for start in range(0, len(rles), 255)]
    areas = np.concatenate([np.zeros(0), *map(mask.area, chunks)])
    return areas, np.concatenate([np.zeros((0, 4)), *map(mask.toBbox, chunks)])
