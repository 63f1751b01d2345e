"""Checks of records, ids and box formats; an error is one line that names the record or file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.text import counted

if TYPE_CHECKING:
    from tldet.coco.records import Category, Image

_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
Who = Callable[[int], str]  # row -> name of the record in messages
UNIT = 1.01  # largest coordinate of a normalized box, with some tolerance
LEAST_SIDE = 10  # pixels; boxes of smaller images are not checked, they may really be one pixel large
SURE_NORMALIZED, SURE_CORNERS = 3, 10  # number of boxes from which a wrong format is an error, not a warning
OVER = 0.05  # fraction of the image side; a box that extends farther outside is wrong, not imprecise
_SHARE = 0.2  # fraction of boxes extending outside their image above which they are taken for corners
_MOST = 0.9  # fraction of boxes that lie inside as corners; the others may be damaged
FLAT, OUTSIDE, MOVED = (
    "of zero extent left out",
    "outside the image left out",
    "extending over the image border clipped",
)
_NOTABLE = 1  # pixels by which a box must be clipped to be counted
NAMED = 5  # ids in a note; the others are counted
NOT_COCO = "must be [x, y, width, height] in pixels"


def require(good: _Bools, who: Who, what: Callable[[int], str]) -> None:
    """Raise DataError for the first bad row; the message counts the others."""
    if good.all():
        return
    first = int(np.flatnonzero(~good)[0])
    others = int((~good).sum()) - 1
    raise DataError(f"{who(first)} {what(first)}" + (f" ({others} more like it)" if others else ""))


def unique_ids(name: str, noun: str, ids: Sequence[Any]) -> None:
    """Raise DataError unless each id occurs once."""
    if len(set(ids)) == len(ids):
        return
    twice = [key for key, count in Counter(ids).items() if count > 1]
    more = f" ({len(twice) - 1} more like it)" if len(twice) > 1 else ""
    raise DataError(f"{name}: {noun} id {twice[0]} occurs more than once{more}; ids must be unique")


def positions_of(ids: _Ints | Sequence[Any], known: Sequence[int], key: str, who: Who) -> _Ints:
    """Return the position of each id (N,) in the known ids.

    Raises:
        DataError: an id is unknown; the message names it.
    """
    if isinstance(ids, np.ndarray) and known:
        table = np.array(known, np.int64)
        order = np.argsort(table)
        positions: _Ints = order[np.searchsorted(table, ids, sorter=order).clip(max=len(table) - 1)]
        positions = np.where(table[positions] == ids, positions, -1)
    else:  # numbers of a results file: 7.0 is the id 7
        position_of = {key: position for position, key in enumerate(known)}
        positions = np.array([position_of.get(value, -1) for value in ids], np.int64)
    require(positions >= 0, who, lambda row: f"has unknown {key} {ids[row]}: {_known_ids(known, key)}")
    return positions


def _known_ids(known: Sequence[int], key: str) -> str:
    if key == "image_id":
        return f"there is no such id among {counted(len(known), 'image')}"
    return f"the ids are {shortened(known)}"


def sound_boxes(values: _Floats, who: Who) -> None:
    """Raise DataError for an xywh box that is not finite, has a negative side, or whose area or corners overflow."""
    known: _Bools = np.logical_and.reduce(np.isfinite(values), axis=1)
    require(known, who, lambda row: f"has bbox {values[row].tolist()}; it must be finite")
    upright: _Bools = (values[:, 2] >= 0) & (values[:, 3] >= 0)
    require(upright, who, lambda row: f"has bbox {values[row].tolist()}: its width or height is negative")
    with np.errstate(over="ignore"):
        fits = np.isfinite(values[:, 2] * values[:, 3] + values[:, 0] + values[:, 1])
    require(fits, who, lambda row: f"has bbox {values[row].tolist()}: its area and corners must be finite")


def shortened(values: Sequence[Any], limit: int = 12) -> str:
    """``1, 2, 3, ... (80 in all)``."""
    text = ", ".join(map(str, values[:limit])) or "none"
    return text if len(values) <= limit else f"{text}, ... ({len(values)} in all)"


def require_coco_boxes(
    name: str, noun: str, boxes: NDArray[np.float64], sizes: NDArray[np.int64], areas: NDArray[np.float64] | None = None
) -> list[str]:
    """Reject boxes that are all normalized or corners; warn if only some may be.

    Args:
        name: name of the file in messages.
        noun: plural noun for the boxes in messages.
        boxes: (N, 4) as they are in the file.
        sizes: (N, 2) int64, (height, width) of each box's image; 0 for an unknown size.
        areas: (N,) areas in the file, NaN if missing.

    Returns:
        Warnings about suspicious boxes that are too few to be sure.

    Raises:
        DataError: the boxes are in another format.
    """
    longest, sides = np.maximum(*sizes.T), boxes[:, 2:].T
    rows = (sides[0] > 0) & (sides[1] > 0) & ((longest > LEAST_SIDE) | (longest == 0))
    if not rows.all():
        boxes, sizes, areas = boxes[rows], sizes[rows], None if areas is None else areas[rows]
    small = np.flatnonzero((boxes[:, 2] <= UNIT) & (boxes[:, 3] <= UNIT))
    count = int((np.abs(boxes[small]) <= UNIT).all(1).sum())
    if len(boxes) and count == len(boxes):
        return _reject_if_sure(
            name,
            f"all {count} {noun} lie within 0..1: they seem to be normalized but {NOT_COCO}",
            count >= SURE_NORMALIZED,
        )
    warnings = []
    if count:
        warnings.append(f"{count} of {len(boxes)} {noun} lie within 0..1 and may be normalized; they {NOT_COCO}")
    if (what := corners_reason(boxes, sizes, areas)) is not None:
        text = f"{noun} seem to be corners [x0, y0, x1, y1] ({what}) but {NOT_COCO}"
        warnings += _reject_if_sure(name, text, len(boxes) >= SURE_CORNERS)
    return warnings


def _reject_if_sure(name: str, text: str, sure: bool) -> list[str]:
    if sure:
        raise DataError(f"{name}: {text}; convert them")
    return [text]


def corners_reason(
    boxes: NDArray[np.float64], sizes: NDArray[np.int64], areas: NDArray[np.float64] | None
) -> str | None:
    """Return the reason why boxes seem to be corners; None if they do not.

    Args:
        boxes: (N, 4) as they are in the file, of positive width and height.
        sizes: (N, 2) (height, width) of each box's image; 0 for an unknown size.
        areas: (N,) areas in the file, NaN if missing.
    """
    known = (sizes[:, 0] > 0) & (sizes[:, 1] > 0)
    if ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[known].sum() < _MOST * known.sum():
        return None
    boxes, sides = boxes[known], sizes[known][:, ::-1].astype(np.float64)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= sides + 1).all(1) & (boxes >= -1).all(1)
    if not len(boxes) or inside.mean() < _MOST:
        return None
    over = (boxes[:, :2] + boxes[:, 2:] > sides * (1 + OVER) + 1).any(1)
    if over.mean() > _SHARE:
        count = "none" if inside.all() else str(int((~inside).sum()))
        return (
            f"as widths and heights, {int(over.sum())} of {len(boxes)} extend outside their image; as corners, {count}"
        )
    if areas is None or not inside.all():
        return None
    stated = areas[known]
    as_corners, as_sides = (boxes[:, 2:] - boxes[:, :2]).prod(1), boxes[:, 2:].prod(1)
    fits = np.isclose(stated, as_corners, rtol=1e-3) & ~np.isclose(stated, as_sides, rtol=1e-2)
    return "every 'area' fits corners only" if fits.all() else None


def training_fields(name: str, images: Sequence[Image], categories: Sequence[Category]) -> None:
    """Raise DataError unless every image has a file name and a size, and every category a unique name."""
    if not images:
        raise DataError(f"{name}: has no images")
    for image in images:
        if image.file_name is None:
            raise DataError(f"{name}: image id {image.id} has no 'file_name'")
        if image.width is None or image.height is None:
            raise DataError(f"{name}: image id {image.id} has no '{'width' if image.width is None else 'height'}'")
        if image.width <= 0 or image.height <= 0:
            raise DataError(f"{name}: image {image.id} ({image.file_name}) has size {image.width} x {image.height}")
    if not categories:
        raise DataError(f"{name}: has no categories")
    seen: dict[str, int] = {}
    for category in categories:
        if category.name is None:
            raise DataError(f"{name}: category id {category.id} has no 'name'")
        if category.id < 0:
            raise DataError(
                f"{name}: category id {category.id} ({category.name}) is negative: number the categories from 0 up"
            )
        if seen.setdefault(category.name, category.id) != category.id:
            ids = f"category ids {seen[category.name]} and {category.id}"
            raise DataError(f"{name}: category name {category.name!r} occurs more than once ({ids}); rename one")


def note(rows: NDArray[np.bool_], ids: NDArray[np.int64], noun: str, text: str, plural: str | None = None) -> str:
    """Return a message that counts annotations, or parts of them, and names the first ids; empty if there are none."""
    named = ", ".join(str(i) for i in ids[rows][:NAMED])
    more = ", ..." if rows.sum() > NAMED else ""
    return f"{counted(int(rows.sum()), noun, plural)} {text} (annotation {named}{more})" if rows.any() else ""


@dataclass(frozen=True)
class ClippedBoxes:
    """Result of clipping boxes to their images.

    Attributes:
        clipped: (A, 4) float32 xyxy pixels.
        flat: (A,) bool, boxes without extent.
        outside: (A,) bool, boxes without extent inside the image.
        moved: (A,) bool, kept boxes that were clipped by more than a pixel.
    """

    clipped: NDArray[np.float32]
    flat: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    moved: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(A,) bool, boxes that are used."""
        return np.asarray(~(self.flat | self.outside), np.bool_)


def clip_to_images(boxes: NDArray[np.float32], xywh: NDArray[np.float64], sizes: NDArray[np.int32]) -> ClippedBoxes:
    """Clip boxes to their images.

    Args:
        boxes: (A, 4) xyxy pixels.
        xywh: (A, 4) the same boxes as stated in the file.
        sizes: (A, 2) (height, width) of the image of each box.
    """
    limits = sizes[:, ::-1].astype(np.float32)
    clipped = np.clip(boxes, 0, np.concatenate([limits, limits], 1))
    flat = (xywh[:, 2:] == 0).any(1) | (boxes[:, 2:] <= boxes[:, :2]).any(1)
    outside = ~flat & (clipped[:, 2:] <= clipped[:, :2]).any(1)
    moved = (np.abs(clipped - boxes) > _NOTABLE).any(1) & ~flat & ~outside
    return ClippedBoxes(clipped, flat, outside, moved)
