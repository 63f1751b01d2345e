"""The annotations of a COCO JSON as columns, with safe repairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco import checks
from tldet.coco.ids import unclashed
from tldet.coco.outlines import bounds_of, drop_degenerate, parse_outline
from tldet.coco.records import NO_FLAG, NO_ID, ODD_ID, Annotation, Image
from tldet.errors import DataError
from tldet.text import counted

LACKING = 4  # position of the column of missing boxes in _columns
NAMED = 5  # ids named in a note; the others are counted


@dataclass(frozen=True)
class Objects:
    """The annotations of a file in file order, column by column.

    Attributes:
        rows: (A,) int64, position of each annotation in the file.
        ids: (A,) int64, unique.
        stated_ids: (A,) int64, the ids in the file; ``NO_ID`` or ``ODD_ID`` for an annotation without one.
        places: (A,) int64, position of the annotation's image.
        category_ids: (A,) int64.
        boxes: (A, 4) float64 x, y, width, height in pixels.
        derived: (A,) bool, whether the box is derived from the segmentation.
        crowd: (A,) bool; False for an annotation without ``iscrowd``.
        flagged: (A,) bool, whether ``iscrowd`` is present.
        areas: (A,) float64; NaN for an annotation without a positive area.
        lengths: (A,) int64, bytes of each segmentation's JSON text.
        text: the JSON texts of all segmentations, concatenated; empty if they were not kept.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    stated_ids: NDArray[np.int64]
    places: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    derived: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    areas: NDArray[np.float64]
    lengths: NDArray[np.int64]
    text: bytearray


def read_objects(
    name: str,
    blocks: Iterator[list[Annotation]],
    images: Sequence[Image],
    categories: Sequence[int],
    *,
    outlines: bool,
) -> tuple[Objects, list[str]]:
    """Collect annotations into columns, with notes on those that were changed or left out.

    Segmentations are kept if ``outlines``.

    Raises:
        DataError: an annotation has an unknown image or category id, or no usable box.
    """
    parts, text, boxless, count = [], bytearray(), dict[int, bytes](), 0
    for block in blocks:
        parts.append(_columns(name, block, count))
        for row in np.flatnonzero(parts[-1][LACKING]).tolist():
            boxless[count + row] = bytes(block[row].segmentation)
        count += len(block)
        if outlines:
            text += b"".join([a.segmentation for a in block])
    stated, image_ids, category_ids, boxes, lacking, flags, areas, lengths = map(
        np.concatenate, zip(*parts, strict=True)
    )

    def who(row: int) -> str:
        return f"{name}: {_called(int(stated[row]), row)}"

    places = checks.ranks(image_ids, [image.id for image in images], "image_id", who)
    checks.ranks(category_ids, categories, "category_id", who)
    ids, notes = _numbered(stated)
    areas = np.where(np.isfinite(areas) & (areas > 0), areas, np.nan)
    flagged = flags != NO_FLAG
    columns = (ids, stated, places, category_ids, boxes, lacking, (flags != 0) & flagged, flagged, areas, lengths)
    found = Objects(np.arange(len(ids)), *columns, text)
    if lacking.any():
        found, told = _with_boxes(found, boxless, images, who)
        notes += told
    checks.sound_boxes(found.boxes, lambda row: who(int(found.rows[row])))
    return found, notes


def _columns(name: str, block: list[Annotation], start: int) -> list[NDArray[Any]]:
    found: list[Any] = [a.bbox for a in block]
    try:
        boxes = np.array(found, np.float64).reshape(-1, 4)
        lacking = np.zeros(len(block), np.bool_)
        uneven = len(boxes) != len(block)
    except (TypeError, ValueError):
        uneven = True
    if uneven:
        lacking = np.array([not box for box in found], np.bool_)
        odd = next((a for a in block if a.bbox and len(a.bbox) != 4), None)
        if odd is not None:
            called = _called(odd.id, start + next(row for row, a in enumerate(block) if a is odd))
            raise DataError(f"{name}: {called} has bbox {odd.bbox}; it must be four numbers [x, y, width, height]")
        boxes = np.array([box or [np.nan] * 4 for box in found], np.float64).reshape(-1, 4)
    return [
        np.array([a.id for a in block], np.int64),
        np.array([a.image_id for a in block], np.int64),
        np.array([a.category_id for a in block], np.int64),
        boxes,
        lacking,
        np.array([a.iscrowd for a in block], np.int64),
        np.array([a.area for a in block], np.float64),
        np.array([len(a.segmentation) for a in block], np.int64),
    ]


def _called(stated: int, row: int) -> str:
    return f"annotation {row} (counted from 0)" if stated in (NO_ID, ODD_ID) else f"annotation id {stated}"


def _numbered(stated: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Number annotations without a valid id; the first annotation with a repeated id keeps it."""
    if len(stated) == 0 or (stated[0] > ODD_ID and (stated[1:] > stated[:-1]).all()):
        return stated, []
    ids = unclashed(stated, (NO_ID, ODD_ID))
    missing, odd = stated == NO_ID, stated == ODD_ID
    repeated = (ids != stated) & ~missing & ~odd
    notes = [
        f"{counted(int(missing.sum()), 'annotation')} without an id: numbered" if missing.any() else "",
        f"{counted(int(odd.sum()), 'annotation')} with an id that is not an integer: renumbered" if odd.any() else "",
        note(repeated, stated, "annotation", "with the id of an earlier one: renumbered"),
    ]
    return ids, [one for one in notes if one]


def _with_boxes(
    found: Objects, texts: Mapping[int, bytes], images: Sequence[Image], who: checks.Who
) -> tuple[Objects, list[str]]:
    """Derive missing boxes from the segmentations; leave out annotations that have only degenerate polygons."""
    boxes = found.boxes.copy()
    left_out = np.zeros(len(boxes), np.bool_)
    for row, text in texts.items():
        image = images[int(found.places[row])]
        outline, dropped = drop_degenerate(parse_outline(text))
        if outline is None and not dropped:
            raise DataError(f"{who(row)} has no bbox, and no segmentation to derive one from; add a bbox")
        left_out[row] = outline is None
        if outline is not None:
            try:
                boxes[row] = bounds_of(outline, (image.height or 0, image.width or 0))
            except DataError as error:
                raise DataError(f"{who(row)} has no bbox and {error}") from None
    notes = [
        note(found.derived & ~left_out, found.ids, "missing box", "derived from the segmentation", "missing boxes"),
        note(left_out, found.ids, "annotation", "with neither a bbox nor a polygon of 3 or more points left out"),
    ]
    return _taken(replace(found, boxes=boxes), ~left_out), [one for one in notes if one]


def _taken(found: Objects, kept: NDArray[np.bool_]) -> Objects:
    if kept.all():
        return found
    starts = np.cumsum(found.lengths) - found.lengths
    spans = zip(starts[kept].tolist(), found.lengths[kept].tolist(), strict=True)
    text = bytearray(b"".join(found.text[start : start + length] for start, length in spans))
    columns = [field.name for field in fields(found) if field.name != "text"]
    return Objects(**{name: getattr(found, name)[kept] for name in columns}, text=text)


def note(rows: NDArray[np.bool_], ids: NDArray[np.int64], noun: str, text: str, plural: str | None = None) -> str:
    """Count annotations, or their parts by a noun, and name the first; an empty text if there are none."""
    named = ", ".join(str(i) for i in ids[rows][:NAMED])
    more = ", ..." if rows.sum() > NAMED else ""
    return f"{counted(int(rows.sum()), noun, plural)} {text} (annotation {named}{more})" if rows.any() else ""
