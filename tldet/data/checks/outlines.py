"""Checks of masks and crowd regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tldet.coco.segmentations import bounds_of, drop_degenerate
from tldet.data.checks.findings import Corners, Finding
from tldet.data.checks.records import Records
from tldet.structures import rle
from tldet.structures.image import Size
from tldet.text import counted

_FITS, _PIXELS = 0.7, 3.0  # least IoU of mask bounds and box, unless no side differs by more than so many pixels
_AREA, _LEAST_AREA = 0.25, 16.0  # largest relative and absolute difference of areas


def check_masks(records: Records) -> Iterator[Finding]:
    """Yield masks that are invalid, empty, degenerate or do not match their box, and areas that match neither."""
    outlined = np.array([len(text) > len("null") for text in records.texts], np.bool_)
    for row in range(len(records.boxes)):
        outline = records.outline(row) if row < len(outlined) and outlined[row] else None
        yield from _check_mask(records, row, outline)
    plain = ~records.crowd
    if len(outlined) and outlined[plain].any() and not outlined[plain].all():
        count = int((~outlined & plain).sum())
        yield records.finding("mask-partial", f"no mask for {count} of {counted(int(plain.sum()), 'object')}")


def _check_mask(records: Records, row: int, outline: Any) -> Iterator[Finding]:
    size: Size = tuple(records.sizes[int(records.positions[row])].tolist())
    if outline is None:
        yield from _check_area(records, row, None)
        return
    kept, dropped = drop_degenerate(outline)
    if dropped:
        text = f"{counted(dropped, 'polygon')} with fewer than three points"
        change = records.change(row, {"segmentation": kept or []})
        yield records.of_object("mask-degenerate", row, text, fix="remove them", repairs=change)
    if kept is None:
        return
    if (problem := rle.segmentation_problem(kept, size)) is not None:
        yield records.of_object("mask-invalid", row, problem, fix="correct or remove the segmentation")
        return
    area, bounds = _measured(kept, size)
    if area <= 0:
        yield records.of_object("mask-empty", row, "the mask contains no pixels", fix="correct or remove it")
        return
    if not records.crowd[row] and not _fits(records.corners(row), bounds):
        extent = [round(value, 1) for value in bounds]
        text = f"the box does not match the bounds of the mask, {extent} (x0, y0, x1, y1)"
        yield records.of_object("mask-box", row, text, fix="correct the box or the mask")
    yield from _check_area(records, row, area)


def _measured(outline: Any, size: Size) -> tuple[float, Corners]:
    """Return the area of a valid mask and its bounds x0, y0, x1, y1."""
    x, y, width, height = bounds_of(outline, size)
    if isinstance(outline, list):
        area = sum(_polygon_area(np.array(one, np.float64).reshape(-1, 2)) for one in outline)
    else:
        area = float(rle.areas_and_boxes([rle.to_rle(outline, size)])[0][0])
    return area, (x, y, x + width, y + height)


def _polygon_area(points: Any) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _fits(box: Corners, bounds: Corners) -> bool:
    if max(abs(a - b) for a, b in zip(box, bounds, strict=True)) <= _PIXELS:
        return True
    sides = [max(0.0, min(box[i + 2], bounds[i + 2]) - max(box[i], bounds[i])) for i in (0, 1)]
    inside = sides[0] * sides[1]
    union = sum((one[2] - one[0]) * (one[3] - one[1]) for one in (box, bounds)) - inside
    return union > 0 and inside / union >= _FITS


def _check_area(records: Records, row: int, mask: float | None) -> Iterator[Finding]:
    area, box = float(records.areas[row]), float(records.boxes[row, 2:].prod())
    if np.isnan(area) or records.crowd[row] or box <= 0:
        return
    expected = [box] if mask is None else [box, mask]
    if all(abs(area - one) > max(_AREA * one, _LEAST_AREA) for one in expected):
        text = f"area {area:g} matches neither the box ({box:g}) nor the mask"
        yield records.of_object("area-mismatch", row, text, fix="check box and area")


def check_crowd(records: Records) -> Iterator[Finding]:
    """Yield crowd regions with polygons, and splits that contain crowd regions only."""
    for row in np.flatnonzero(records.crowd).tolist():
        if len(records.texts) and records.texts[row].lstrip().startswith(b"[["):
            text = "crowd region with polygons (COCO uses RLE)"
            yield records.of_object("crowd-polygon", row, text)
    if len(records.crowd) and records.crowd.all():
        text = "all objects are crowd regions, so there is nothing to train or evaluate on"
        yield records.finding("crowd-only", text, fix="set iscrowd to 0 for single objects")
