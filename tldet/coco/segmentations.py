"""Segmentations: polygons of fewer than three points are dropped, boxes are derived from the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import note
from tldet.errors import DataError
from tldet.structures import rle
from tldet.structures.image import Size

if TYPE_CHECKING:
    from tldet.coco.reader import Objects

_CHUNK = 1 << 24  # bytes searched at once
_PLAIN = np.zeros(256, np.bool_)  # True for the characters of polygons without exponents
_PLAIN[list(b"0123456789.-[], \t\r\n")] = True
_DIGITS = 5  # before the point of a number that may lie far outside its image
LONG = 10_000  # bytes of a segmentation that may be far larger than its image


def parse_segmentation(text: bytes) -> Any:
    """Parse the JSON text of a segmentation; None if there is none.

    Text that cannot be parsed is returned as it is; :func:`tldet.structures.rle.segmentation_problem` rejects it.
    """
    try:
        found = msgspec.json.decode(text or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            found = json.loads(text)  # NaN
        except (ValueError, RecursionError):  # such as an integer of thousands of digits
            return text.decode(errors="replace")
    return None if rle.is_none(found) else found


class _Rle(msgspec.Struct):
    size: Size
    counts: msgspec.Raw


def is_rle_of(text: bytes, size: Size) -> bool:
    """Return True if the JSON text of a segmentation is an RLE of ``size``; its counts are not checked."""
    if not text.startswith(b"{"):
        return False
    try:
        return msgspec.json.decode(text, type=_Rle).size == size
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def drop_degenerate(segmentation: Any) -> tuple[Any, int]:
    """Drop the polygons that enclose nothing: those of fewer than three points.

    Returns:
        The remaining segmentation (None if nothing remains) and the number of dropped polygons.
    """
    if not isinstance(segmentation, list) or not any(_degenerate(one) for one in segmentation):
        return segmentation, 0
    kept = [one for one in segmentation if not _degenerate(one)]
    return kept or None, len(segmentation) - len(kept)


def _degenerate(polygon: Any) -> bool:
    short = isinstance(polygon, list) and len(polygon) < 6 and len(polygon) % 2 == 0
    return short and all(isinstance(number, int | float) for number in polygon)


def bounds_of(segmentation: Any, size: Size) -> list[float]:
    """Derive the box of a segmentation without degenerate polygons: x, y, width and height in pixels.

    Raises:
        DataError: the segmentation is invalid for ``size``; the caller puts the annotation's name before the message.
    """
    whole = size if isinstance(segmentation, dict) or 0 not in size else (1, 1)
    if problem := rle.segmentation_problem(segmentation, whole):
        raise DataError(problem)
    if isinstance(segmentation, list):
        points = np.concatenate([np.array(one, np.float64).reshape(-1, 2) for one in segmentation])
        low, high = points.min(0), points.max(0)
        return [*low.tolist(), *(high - low).tolist()]
    box: list[float] = rle.areas_and_boxes([rle.to_rle(segmentation, size)])[1][0].tolist()
    return box


def derive_missing_boxes(
    found: Objects, texts: Mapping[int, bytes], sizes: Sequence[Size], who: Callable[[int], str]
) -> tuple[Objects, list[str]]:
    """Derive missing boxes from the segmentations; leave out annotations that have only degenerate polygons.

    Args:
        found: the annotations.
        texts: JSON text of the segmentation of each annotation without a box, by row.
        sizes: (height, width) of each image.
        who: name of a row in messages.

    Returns:
        The annotations, and notes that count the changes.

    Raises:
        DataError: an annotation has no segmentation, or an invalid one.
    """
    derived = _derive_boxes(texts, {row: sizes[int(found.positions[row])] for row in texts}, who)
    boxes, kept = found.boxes.copy(), np.ones(len(found.boxes), np.bool_)
    for row, box in derived.items():
        kept[row] = box is not None
        boxes[row] = 0 if box is None else box
    notes = [
        note(found.derived & kept, found.ids, "missing box", "derived from the segmentation", "missing boxes"),
        note(~kept, found.ids, "annotation", "with neither a bbox nor a polygon of 3 or more points left out"),
    ]
    return replace(found, boxes=boxes).take(np.flatnonzero(kept)), [line for line in notes if line]


def _derive_boxes(
    texts: Mapping[int, bytes], sizes: Mapping[int, Size], who: Callable[[int], str]
) -> dict[int, list[float] | None]:
    """Derive the missing boxes of annotations from their segmentations.

    Args:
        texts: JSON text of the segmentation of each annotation, by row.
        sizes: (height, width) of each annotation's image, by row.
        who: name of a row in messages.

    Returns:
        Box (x, y, width, height in pixels) of each row; None if the segmentation has degenerate polygons only.

    Raises:
        DataError: an annotation has no segmentation, or an invalid one.
    """
    boxes: dict[int, list[float] | None] = {}
    for row, text in texts.items():
        outline, dropped = drop_degenerate(parse_segmentation(text))
        if outline is None and not dropped:
            raise DataError(f"{who(row)} has no bbox, and no segmentation to derive one from; add a bbox")
        try:
            boxes[row] = None if outline is None else bounds_of(outline, sizes[row])
        except DataError as error:
            raise DataError(f"{who(row)} has no bbox and {error}") from None
    return boxes


def checked_rows(
    raw: NDArray[np.uint8], spans: NDArray[np.int64], file_rows: NDArray[np.int64], sizes: NDArray[np.int32]
) -> Iterator[tuple[int, Any, int, str | None]]:
    """Check the segmentations that need parsing.

    Args:
        raw: JSON texts of all F segmentations of a file, concatenated.
        spans: (F + 1,) int64 start of each text in ``raw``, and the end.
        file_rows: (A,) int64, position of each object in the file.
        sizes: (A, 2) int32 height and width of each object's image.

    Yields:
        row of the object, its segmentation without polygons of fewer than three points, the number of these, and the
        problem of the segmentation, or None.
    """
    rows = np.full(len(spans) - 1, -1)
    rows[file_rows] = np.arange(len(file_rows))
    for position in odd_rows(raw, spans):
        if (row := int(rows[position])) < 0:
            continue
        text = raw[spans[position] : spans[position + 1]].tobytes()
        size = (int(sizes[row, 0]), int(sizes[row, 1]))
        if not is_rle_of(text, size):
            kept, dropped = drop_degenerate(parse_segmentation(text))
            yield row, kept, dropped, None if kept is None else rle.segmentation_problem(kept, size)


def odd_rows(raw: NDArray[np.uint8], spans: NDArray[np.int64]) -> Iterator[int]:
    """Find segmentations that need parsing: neither null, empty, nor only polygons of at least three points.

    Polygons that may lie far outside their image are included. Only the texts are searched; nothing is parsed.

    Args:
        raw: JSON texts of the segmentations, concatenated.
        spans: (A + 1,) int64 start of each text in ``raw``, and the end.
    """
    start = 0
    while start < len(spans) - 1:
        end = max(start + 1, int(np.searchsorted(spans, spans[start] + _CHUNK, side="right")) - 1)
        end = min(end, len(spans) - 1)
        text = np.asarray(raw[spans[start] : spans[end]])
        yield from (start + row for row in _odd_in(text, spans[start : end + 1] - spans[start]))
        start = end


def _odd_in(text: NDArray[np.uint8], spans: NDArray[np.int64]) -> list[int]:
    odd = np.zeros(len(spans), np.bool_)
    rows = np.searchsorted(spans, np.flatnonzero(~_PLAIN[text]), side="right") - 1
    odd[rows] = True
    commas = np.concatenate([[0], np.cumsum(text == ord(","))])
    brackets = np.flatnonzero((text == ord("[")) | (text == ord("]")))
    opening = text[brackets] == ord("[")
    inner = np.flatnonzero(opening[:-1] & ~opening[1:]) if len(brackets) else np.zeros(0, np.int64)
    starts, ends = brackets[inner], brackets[inner + 1] if len(inner) else inner
    count = commas[ends] - commas[starts] + 1  # numbers in each innermost list
    odd[np.searchsorted(spans, starts[(count < 6) | (count % 2 == 1)], side="right") - 1] = True
    owners = np.searchsorted(spans, brackets[opening], side="right") - 1
    inside = np.searchsorted(spans, starts, side="right") - 1
    odd |= np.bincount(owners, minlength=len(odd)) != np.bincount(inside, minlength=len(odd)) + 1  # unusual nesting
    lengths = np.diff(spans)
    odd[np.searchsorted(spans, _large_numbers(text), side="right") - 1] = True
    odd[:-1] |= lengths > LONG
    whole = np.flatnonzero(odd[:-1] & (lengths > 0))
    first = text[spans[whole]]
    null = (first == ord("n")) & (lengths[whole] == len("null"))
    empty = (first == ord("[")) & (lengths[whole] == len("[]"))
    return [int(row) for row in whole[~null & ~empty]]


def _large_numbers(text: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the positions of the numbers with at least ``DIGITS`` digits before the point."""
    digit = text - np.uint8(ord("0")) < 10
    count = max(0, len(text) - _DIGITS + 1)
    run = digit[:count].copy()
    for shift in range(1, _DIGITS):
        run &= digit[shift : shift + count]
    run[1:] &= ~(digit | (text == ord(".")))[: max(0, count - 1)]  # neither later digits nor those after a point
    return np.flatnonzero(run)
