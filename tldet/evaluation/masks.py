"""Run-length masks: what COCO's ``segmentation`` field may hold, and what is measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # (height, width)
Rle = dict[str, Any]


def problem_with(segmentation: Any, size: Size) -> str | None:
    """Why ``segmentation`` cannot be scored on a picture of ``size``, or None when it can."""
    if not segmentation:
        return "has no segmentation"
    if isinstance(segmentation, list):
        return _polygon_problem(segmentation, size)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return "has a segmentation that is neither a list of polygons nor an RLE with size and counts"
    if 0 not in size and list(segmentation["size"]) != list(size):
        return f"has a mask of size {list(segmentation['size'])}, its picture has {list(size)} (height, width)"
    counts = segmentation["counts"]
    if isinstance(counts, list):
        height, width = segmentation["size"]
        return None if sum(counts) == height * width else "has an RLE whose counts do not fill its size"
    return None if isinstance(counts, str | bytes) and counts else "has an RLE without counts"


def _polygon_problem(polygons: list[Any], size: Size) -> str | None:
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "has a polygon that is not a flat list of at least three points [x, y, x, y, ...]"
        if not np.isfinite(np.asarray(polygon, dtype=np.float64)).all():
            return "has a polygon with a number that is not finite"
    return "has a polygon, but its picture has no width and height" if 0 in size else None


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


def encode(masks: NDArray[np.uint8]) -> list[Rle]:
    """RLEs of (N, H, W) masks of 0 and 1, ``counts`` as text so that they go into JSON."""
    from pycocotools import mask

    rles = mask.encode(np.asfortranarray(masks.transpose(1, 2, 0))) if len(masks) else []
    return [{"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()} for rle in rles]
