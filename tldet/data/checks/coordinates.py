"""Boxes that are not in COCO's coordinates: normalized boxes, and boxes x0, y0, x1, y1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import LEAST_SIDE, SURE_CORNERS, SURE_NORMALIZED, UNIT, corners_reason
from tldet.data.checks.findings import Repair
from tldet.data.checks.raw_boxes import stated_size
from tldet.text import are, counted

if TYPE_CHECKING:
    from tldet.data.checks.schema import Salvage

_DIGITS = 6  # decimals of converted coordinates; removes rounding errors
_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_TOLERANCE = 1e-3  # of fractions of the image side


def correct_coordinates(found: Salvage) -> None:
    """Report boxes in other coordinates, and convert them for the other checks if the conversion is unambiguous."""
    records = found.records["annotations"]
    with_box = [number for number, record in enumerate(records) if record.get("bbox")]
    if not with_box:
        return
    boxes = np.array([records[number]["bbox"] for number in with_box], np.float64)
    sizes = _sizes(found, with_box)
    normalized = normalized_rows(boxes, sizes)
    rows = np.array(with_box)
    if normalized.any() and (normalized.sum() >= SURE_NORMALIZED or not normalized.all()):
        _normalized(found, rows[normalized], boxes[normalized], sizes[normalized])
        rows, boxes, sizes = rows[~normalized], boxes[~normalized], sizes[~normalized]
    _corners(found, rows, boxes, sizes)


def _sizes(found: Salvage, numbers: list[int]) -> NDArray[np.int64]:
    records = found.records["annotations"]
    sizes = [stated_size(found.image_of(records[number])) for number in numbers]
    return np.array(sizes, np.int64).reshape(-1, 2)


def normalized_rows(boxes: _Floats, sizes: NDArray[np.int64]) -> _Bools:
    """Return (N,) bool: True for a normalized box, within 0..1 but not a box of one pixel.

    Args:
        boxes: (N, 4) x, y, width, height.
        sizes: (N, 2) (height, width) of the images; 0 if unknown.
    """
    longest = sizes.max(1, initial=0)
    small = (np.abs(boxes) <= UNIT).all(1) & (boxes[:, 2:] > 0).all(1) & (boxes != np.round(boxes)).any(1)
    return np.asarray(small & ((longest > LEAST_SIDE) | (longest == 0)), np.bool_)


def in_pixels(boxes: _Floats, sizes: NDArray[np.int64]) -> _Floats | None:
    """Convert normalized boxes (N, 4) to pixels; None if sizes are unknown or ``x, y`` may be corner or center.

    ``x, y`` is the top left corner if it cannot be the center, because some box would start outside its image, and the
    center if it cannot be the corner, because some box would end outside.
    """
    if (sizes <= 0).any():
        return None
    corner = bool((boxes[:, :2] + boxes[:, 2:] <= 1 + _TOLERANCE).all())
    centered = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], 1)
    center = bool((centered[:, :2] >= -_TOLERANCE).all() and (centered[:, :2] + boxes[:, 2:] <= 1 + _TOLERANCE).all())
    if corner == center:
        return None
    scale = np.concatenate([sizes[:, ::-1], sizes[:, ::-1]], 1)
    return np.asarray(np.round((boxes if corner else centered) * scale, _DIGITS))


def _normalized(found: Salvage, rows: NDArray[np.int64], boxes: _Floats, sizes: NDArray[np.int64]) -> None:
    pixels = in_pixels(boxes, sizes)
    total = counted(len(found.records["annotations"]), "box", "boxes")
    message = f"{len(rows)} of {total} {are(len(rows))} normalized (within 0..1)"
    unclear = "convert them to pixels (x and y may be the corner or the center)"
    fix = unclear if pixels is None else "multiply them by the image size"
    _report(found, "box-normalized", message, fix, rows, pixels)


def _corners(found: Salvage, rows: NDArray[np.int64], boxes: _Floats, sizes: NDArray[np.int64]) -> None:
    records = found.records["annotations"]
    areas = np.array([records[row].get("area") or np.nan for row in rows.tolist()], np.float64)
    valid = (boxes[:, 2:] > 0).all(1)
    reason = corners_reason(boxes[valid], sizes[valid], areas[valid]) if valid.sum() >= SURE_CORNERS else None
    if reason is None:
        return
    inside = valid & (boxes[:, 2:] > boxes[:, :2]).all(1)
    changed = np.round(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), _DIGITS)
    message = f"boxes seem to be x0, y0, x1, y1 ({reason})"
    _report(found, "box-corners", message, "convert them to x, y, width, height", rows[inside], changed[inside])


def _report(
    found: Salvage, code: str, message: str, fix: str, rows: NDArray[np.int64], changed: _Floats | None
) -> None:
    """Report one finding for all boxes, and convert them or exclude them from the other checks."""
    records, positions = found.records["annotations"], found.rows["annotations"]
    first: dict[str, Any] = records[int(rows[0])]
    repairs: tuple[Repair, ...] = ()
    if changed is not None:
        new = [_whole(box) for box in changed.tolist()]
        pairs = list(zip(rows.tolist(), new, strict=True))
        repairs = tuple(Repair("annotations", positions[row], {"bbox": box}) for row, box in pairs)
        for row, box in pairs:
            records[row] = {**records[row], "bbox": box}
    found.add(code, message, annotation=first.get("id"), fix=fix, others=len(rows) - 1, repairs=repairs)
    if changed is None:
        left = sorted(set(range(len(records))) - set(rows.tolist()))
        found.records["annotations"] = [records[row] for row in left]
        found.rows["annotations"] = [positions[row] for row in left]


def _whole(box: list[float]) -> list[float]:
    """Return whole numbers as integers, as most annotation tools write them."""
    return [int(value) if value.is_integer() else value for value in box]
