"""Checks of masks, boxes, scores and classes of detections; an error is one line that names the record."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import Who, require, shortened, sound_boxes
from tldet.errors import DataError
from tldet.structures import rle
from tldet.structures.image import Size

_Floats = NDArray[np.float64]


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
