"""Which classes were annotated on which image: ``labeled_category_ids``, which an entry of ``images`` may state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError

LABELLED = "labeled_category_ids"  # of an image: the categories annotated exhaustively on it; absent: all
_NAMED = 8  # so many known ids are named beside an unknown one


def labeled_table(
    stated: Sequence[Sequence[Any] | None], columns: Mapping[Any, int], who: Callable[[int], str]
) -> NDArray[np.bool_] | None:
    """The classes whose objects are all annotated, image by image; the absence of the others says nothing.

    Args:
        stated: the category ids that each of I images lists, None where it lists none: all are labeled.
        columns: category id -> column.
        who: row -> what a message calls the image, its file first.

    Returns:
        (I, K) bool, or None where every image is labeled for every class.

    Raises:
        DataError: an id is no category.
    """
    table = np.ones((len(stated), len(columns)), np.bool_)
    for row, ids in enumerate(stated):
        if ids is None:
            continue
        for one in ids:
            if one not in columns:
                known = ", ".join(map(str, list(columns)[:_NAMED])) + (", ..." if len(columns) > _NAMED else "")
                raise DataError(f"{who(row)} has unknown category id {one} in {LABELLED}; there are {known}")
        table[row] = False
        table[row, [columns[one] for one in ids]] = True
    return None if table.all() else table
