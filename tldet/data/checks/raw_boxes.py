"""Checks of the raw ``bbox`` of an annotation, before it is decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tldet.coco.raw import Record
from tldet.coco.segmentations import bounds_of, drop_degenerate
from tldet.data.checks.headers import boxes_fit
from tldet.errors import DataError
from tldet.structures import rle
from tldet.structures.image import Size

_DIGITS = 6  # after the point of a side computed from an area
_LARGEST = 1e30  # pixels; squares of larger numbers overflow in single precision


class ReportProblem(Protocol):
    """Reports a problem of an annotation; ``change`` contains the corrected keys."""

    def __call__(self, code: str, message: str, **values: Any) -> None:
        """Report it."""
        ...


def stated_size(image: Record) -> Size:
    """Return the (height, width) of an entry of ``images``; (0, 0) if it is unknown."""
    sides = [image.get(key) for key in ("height", "width")]
    known = [int(side) for side in sides if isinstance(side, int | float) and side > 0]
    return (known[0], known[1]) if len(known) == 2 else (0, 0)


def check_box(record: Record, size: Size, report: ReportProblem) -> Record | None:
    """Check the box of an annotation; return the annotation with a valid box, or None if there is none.

    Args:
        record: the annotation.
        size: (height, width) of its image; (0, 0) if unknown.
        report: called with each problem.
    """
    box, name = record.get("bbox"), f"annotation id {record['id']}" if "id" in record else "an annotation"
    if not box:
        if not rle.is_none(record.get("segmentation")):
            return record
        report("box-missing", f"{name} has no bbox and no mask", fix="add a bbox or remove the annotation")
        return None
    numbers = box_numbers(box)
    if numbers is None:
        report("box-invalid", f"{name} has bbox {str(box)[:80]}; it must be [x, y, width, height]", fix="correct it")
        return None
    if numbers != box:
        text = f"{name} has bbox {box} with numbers written as text"
        report("box-invalid", text, change={"bbox": numbers}, fix="convert them to numbers")
    return _checked({**record, "bbox": numbers}, numbers, size, name, report)


def _checked(record: Record, box: list[float], size: Size, name: str, report: ReportProblem) -> Record | None:
    finite = all_finite(box)
    if finite and min(box[2:]) >= 0:
        return record
    if finite:
        code, what = "box-negative", "its width or height is negative"
        known, how = _turned(box, size), "replaced by the only such box that lies inside the image"
    else:
        code, what = "box-not-finite", "its numbers must be finite"
        known, how = _derived(record), "replaced by the box computed from the mask or the area"
    change = None if known is None else {"bbox": known}
    report(code, f"{name} has bbox {box}: {what}", fix="correct it" if known is None else how, change=change)
    return None if known is None else {**record, "bbox": known}


def all_finite(numbers: Sequence[float]) -> bool:
    """Return True if all numbers are possible coordinates; integers of JSON may exceed the range of floats."""
    return all(abs(one) <= _LARGEST for one in numbers)  # false for NaN


def _turned(box: list[float], size: Size) -> list[float] | None:
    """Return a box with positive width and height; None unless exactly one reading lies inside the image.

    With a negative width, ``x`` may be the left or the right side.
    """
    x, y, width, height = box
    corner = [x, y, abs(width), abs(height)]
    other = [x + min(width, 0), y + min(height, 0), abs(width), abs(height)]
    fitting = [one for one in (corner, other) if boxes_fit(np.array([one], np.float64), size)]
    return fitting[0] if len(fitting) == 1 else None


def box_numbers(box: Any) -> list[float] | None:
    """Return the four numbers of a box, also if they are text; None if it is another value."""
    if not isinstance(box, list) or len(box) != 4:
        return None
    try:
        found = [float(one) if isinstance(one, str) else one for one in box]
    except ValueError:
        return None
    valid = all(isinstance(one, int | float) and not isinstance(one, bool) for one in found)
    return found if valid else None


def _derived(record: Mapping[str, Any]) -> list[float] | None:
    """Return the box of the mask, or the box whose one missing side follows from the area."""
    outline, _ = drop_degenerate(record.get("segmentation"))
    if isinstance(outline, list) and outline:
        try:
            return bounds_of(outline, (0, 0))
        except DataError:
            return None
    box, area = list(record["bbox"]), record.get("area")
    unknown = [number for number, value in enumerate(box) if not all_finite([value])]
    if unknown not in ([2], [3]) or not isinstance(area, int | float) or not 0 < area < math.inf:
        return None
    other = box[5 - unknown[0]]
    if other <= 0:
        return None
    box[unknown[0]] = round(area / other, _DIGITS)
    return box
