"""Checks of records, ids and box formats; an error is one line that names the record or file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.structures import rle
from tldet.structures.image import Size
from tldet.text import counted

if TYPE_CHECKING:
    from tldet.coco.records import Category, Image

_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]
Who = Callable[[int], str]  # row -> name of the record in messages
NAMED = 5  # ids in a note; the others are counted


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


def segmentations(found: Sequence[Any], sizes: Sequence[Size], who: Who) -> None:
    """Raise DataError for the first invalid mask."""
    for row, (segmentation, size) in enumerate(zip(found, sizes, strict=True)):
        if problem := rle.segmentation_problem(segmentation, size):
            raise DataError(f"{who(row)} {problem}")


def boxes(found: Sequence[Sequence[float] | None], who: Who) -> _Floats:
    """Convert boxes to (N, 4) xywh; raise DataError for one that is missing or malformed."""
    require(np.array([box is not None for box in found], dtype=bool), who, lambda _: "has no bbox")
    rows = [box for box in found if box is not None]
    four = np.array([len(box) == 4 for box in rows], dtype=bool)
    require(four, who, lambda row: f"has bbox {rows[row]}; it must be four numbers [x, y, width, height]")
    values = np.fromiter(chain.from_iterable(rows), dtype=np.float64, count=4 * len(rows)).reshape(-1, 4)
    sound_boxes(values, who)
    return values


def sound_boxes(values: _Floats, who: Who) -> None:
    """Raise DataError for an xywh box that is not finite, has a negative size, or too large ones for its area."""
    known: _Bools = np.logical_and.reduce(np.isfinite(values), axis=1)
    require(known, who, lambda row: f"has bbox {values[row].tolist()}; it must be finite")
    upright: _Bools = (values[:, 2] >= 0) & (values[:, 3] >= 0)
    require(upright, who, lambda row: f"has bbox {values[row].tolist()}: its width or height is negative")
    with np.errstate(over="ignore"):
        fits = np.isfinite(values[:, 2] * values[:, 3] + values[:, 0] + values[:, 1])
    require(fits, who, lambda row: f"has bbox {values[row].tolist()}: its area and corners must be finite")


def finite(values: _Floats, key: str, who: Who) -> None:
    """Raise DataError for a number that is NaN or infinite."""
    require(np.isfinite(values), who, lambda row: f"has {key} {values[row]}; it must be a finite number")


def common_classes(dataset_names: Collection[str], model_names: Collection[str]) -> list[str]:
    """Return the class names that a dataset and a model share, in the dataset's order.

    Raises:
        DataError: they share no class.
    """
    shared = [name for name in dataset_names if name in set(model_names)]
    if not shared:
        theirs, ours = shortened(list(dataset_names)), shortened(list(model_names))
        raise DataError(f"annotations and model share no class (annotations: {theirs}; model: {ours})")
    return shared


def shortened(values: Sequence[Any], limit: int = 12) -> str:
    """``1, 2, 3, ... (80 in all)``."""
    text = ", ".join(map(str, values[:limit])) or "none"
    return text if len(values) <= limit else f"{text}, ... ({len(values)} in all)"


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
