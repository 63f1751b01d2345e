"""Run-length masks: validation of COCO's ``segmentation`` field, conversion to RLE, areas and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.structures.image import Size
from tldet.text import counted

Rle = dict[str, Any]
MOST_PIXELS = 2**32 - 1  # of a mask: pycocotools counts pixels in 32 bits
LONG_OUTLINE = 1_000_000  # pixels; pycocotools takes 80 bytes for each pixel of an outline
LONGEST_OUTLINE = 20_000_000  # pixels, also in the largest image; pycocotools scales coordinates by 5 in 32 bits
_FAR = 4  # times the longer side of the image; a coordinate beyond it is wrong
CHARACTERS = 6  # of a run length in a compressed RLE, 5 bits each: pycocotools shifts 32-bit integers
_SMALLEST_DENSE = 8  # pixels; fewer rows of fewer pixels may be polygons
_MALFORMED = "has a segmentation that is neither a list of polygons nor an RLE with size and counts"


def is_none(segmentation: Any) -> bool:
    """Return True if there is no mask: ``null``, ``[]`` or ``[[]]``."""
    return not segmentation or segmentation == [[]]


def segmentation_problem(segmentation: Any, size: Size) -> str | None:
    """Explain why a segmentation is not a mask of an image of ``size``; None if it is.

    A valid segmentation is safe for pycocotools, which does not check coordinates and sizes before it allocates memory.
    """
    if is_none(segmentation):
        return "has no segmentation"
    if size[0] * size[1] > MOST_PIXELS:
        return f"has a mask, but its image of {size[1]} x {size[0]} pixels is too large for masks"
    try:
        return (
            _polygon_problem(segmentation, size) if isinstance(segmentation, list) else _rle_problem(segmentation, size)
        )
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
        return _MALFORMED


def _polygon_problem(polygons: list[Any], size: Size) -> str | None:
    if _is_dense(polygons, size):
        return "has a mask as rows of pixels, not polygons; use an RLE with size and counts"
    for polygon in polygons:
        numbers = np.array(polygon)
        points = numbers.astype(np.float64)
        if numbers.dtype.kind == "U" or points.ndim != 1 or len(points) < 6 or len(points) % 2:
            return "has a polygon that is not a flat list of at least three points [x, y, x, y, ...]"
        reach = float(np.abs(points).max())
        if not isfinite(reach):
            return "has a polygon with a number that is not finite"
        limit = min(max(LONG_OUTLINE, size[0] * size[1]), LONGEST_OUTLINE)
        if reach * len(points) > LONG_OUTLINE and (length := outline_length(points)) > limit:
            if reach > _FAR * max(size):
                far = points[np.abs(points).argmax()]
                return f"has a polygon far larger than its image (coordinate {far:g}); correct its coordinates"
            return (
                f"has a polygon with an outline of {length:,.0f} pixels ({counted(len(points) // 2, 'point')}), more "
                f"than the limit of {limit:,}; simplify it or use an RLE"
            )
    return "has a polygon, but its image has no width and height" if 0 in size else None


def _is_dense(rows: list[Any], size: Size) -> bool:
    """Return True for the rows of a mask of zeros and ones."""
    if min(size) < _SMALLEST_DENSE or len(rows) != size[0]:
        return False
    whole = all(isinstance(row, list) and len(row) == size[1] for row in rows)
    return whole and all(pixel in (0, 1) for row in rows for pixel in row)


def outline_length(points: NDArray[np.float64]) -> float:
    """Return the number of pixels between the points (2 N) of a polygon, and from the origin to the farthest one."""
    with np.errstate(over="ignore"):
        corners = points.reshape(-1, 2)
        return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(1).sum() + np.abs(points).max())


def _rle_problem(rle: Rle, size: Size) -> str | None:
    stated, counts = rle["size"], rle["counts"]
    if len(stated) != 2 or not all(type(side) is int or isinstance(side, np.integer) for side in stated):
        return f"has an RLE of size {stated}; it must be two integers [height, width]"
    height, width = stated
    if 0 not in size and (height, width) != size:
        return f"has a mask of size {[height, width]}, but its image is {list(size)} (height, width)"
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        return f"has an RLE of size {[height, width]}; it must have between 1 and {MOST_PIXELS} pixels"
    if isinstance(counts, list):
        runs = np.array(counts)
        if runs.ndim != 1 or runs.dtype.kind not in "iu":
            return "has an RLE whose counts are not a flat list of integers"
        runs = runs.clip(max=MOST_PIXELS + 1)  # the sum of larger ones may wrap around
    else:
        runs = run_lengths(counts if isinstance(counts, bytes) else counts.encode())
    if runs.min() < 0 or runs.sum() != height * width:
        return f"has an RLE whose counts do not fill its size {[height, width]}"
    return None


def run_lengths(counts: bytes) -> NDArray[np.int64]:
    """Decode the run lengths of a compressed RLE (``rleFrString`` of COCO's maskApi.c).

    Each number is written in groups of 5 bits, lowest first, as characters from 48; bit 6 marks that more follow. From
    the fourth on it is the difference to the number before the last one.

    Raises:
        ValueError: ``counts`` ends in the middle of a number, or has other characters or larger numbers.
    """
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((digits & 0x20) == 0)
    if (digits < 0).any() or (digits >= 64).any() or not len(ends) or ends[-1] != len(digits) - 1:
        raise ValueError("not a compressed RLE")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > CHARACTERS:
        raise ValueError("not a compressed RLE: a number of more than 30 bits")
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((digits & 0x1F) << shifts, starts)
    values -= np.where(digits[ends] & 0x10, np.int64(1) << (5 * lengths), 0)  # a negative difference
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def to_rle(segmentation: Any, size: Size) -> Rle:
    """Convert valid polygons or a valid RLE to a compressed RLE, as ``COCO.annToRLE`` of pycocotools does."""
    from pycocotools import mask

    if isinstance(segmentation, list):
        rle: Rle = mask.merge(mask.frPyObjects(segmentation, *size))
        return rle
    if isinstance(segmentation["counts"], list):
        compressed: Rle = mask.frPyObjects(segmentation, *segmentation["size"])
        return compressed
    return dict(segmentation)


def encode(mask: NDArray[Any]) -> Rle:
    """Encode a mask (H, W), 0 for background, as a compressed RLE that JSON can hold."""
    from pycocotools import mask as coco_mask

    found = coco_mask.encode(np.asfortranarray((mask > 0).astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def areas_and_boxes(rles: Sequence[Rle]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels (N,) and the xywh bounds (N, 4) of compressed RLEs."""
    from pycocotools import mask

    # `mask.area` of 256 or more RLEs raises OverflowError under numpy 2 (seen with pycocotools 2.0.11)
    chunks = [list(rles[start : start + 255]) for start in range(0, len(rles), 255)]
    areas = np.concatenate([np.zeros(0), *map(mask.area, chunks)])
    return areas, np.concatenate([np.zeros((0, 4)), *map(mask.toBbox, chunks)])
