"""Partially labeled images: ``labeled_category_ids`` of an entry of ``images``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.text import are, counted

if TYPE_CHECKING:
    from tldet.coco.reader import Coco

LABELED = "labeled_category_ids"  # of an image: categories annotated exhaustively on the image; missing: all
_NAMED = 8  # known ids in a message


def labeled_table(
    stated: Sequence[Sequence[Any] | None], columns: Mapping[Any, int], who: Callable[[int], str]
) -> NDArray[np.bool_] | None:
    """Return a table of the classes that are annotated on each image.

    Objects of a class that is not annotated on an image may still be visible there.

    Args:
        stated: category ids annotated on each of I images; None for all.
        columns: column of each category id.
        who: name of an image in messages, by row.

    Returns:
        (I, K) bool; None if every image is annotated for every class.

    Raises:
        DataError: an id is not a category.
    """
    table = np.ones((len(stated), len(columns)), np.bool_)
    for row, ids in enumerate(stated):
        if ids is None:
            continue
        for key in ids:
            if key not in columns:
                known = ", ".join(map(str, list(columns)[:_NAMED])) + (", ..." if len(columns) > _NAMED else "")
                raise DataError(f"{who(row)} has unknown category id {key} in {LABELED}; known ids: {known}")
        table[row] = False
        table[row, [columns[key] for key in ids]] = True
    return None if table.all() else table


def annotated_for_some(table: NDArray[np.bool_]) -> str:
    """Describe the number of partially labeled images in a table of :func:`labeled_table`."""
    some = int((~table.all(1)).sum())
    return f"{some} of {counted(len(table), 'image')} {are(some)} annotated for some classes only"


def labeled_in(coco: Coco, stated: Sequence[Sequence[int] | None], name: str) -> NDArray[np.bool_] | None:
    """Return the table of :func:`labeled_table` for the images of a file.

    Args:
        coco: its content.
        stated: annotated categories of each image.
        name: name of the file in messages.
    """
    label_of = {key: label for label, key in enumerate(sorted(category.id for category in coco.categories))}
    images = coco.images
    return labeled_table(stated, label_of, lambda row: f"{name}: image {images[row].id} ({images[row].file_name})")
