"""Nested, class-stratified subsets of a COCO JSON: the smaller one lies within the larger one.

All images are dealt into one order, a pure function of the seed; the subset of a fraction is the order's beginning. A
class keeps its share because the images of each rarest class are spread evenly over the order, as iterative
stratification begins with the rarest label (Sechidis et al. 2011), and within such a group those alike in their other
classes lie apart.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.splits import rarest_classes, shown_classes, write_split
from tldet.errors import DataError
from tldet.text import counted

log = logging.getLogger(__name__)
STREAM = 11  # beside the seed: other draws of the same seed are others
_NAMED = 5  # classes in a message


def deal(index: AnnotationIndex, seed: int) -> NDArray[np.int64]:
    """An order of all images whose every beginning is a stratified subset.

    It begins with a few images that together show each class; then, in every beginning of n of I images, a group of
    m images of the same rarest class has n m / I of them to within about one.

    Args:
        index: the data.
        seed: what the order is drawn from.

    Returns:
        (I,) positions of images.

    Raises:
        DataError: a class has no image.
    """
    shown = shown_classes(index)
    _refuse_empty(index, shown)
    random = np.random.default_rng([seed, STREAM])
    place = np.empty(len(index))
    rarest = rarest_classes(index)
    for label in np.unique(rarest):
        rows = _apart(np.flatnonzero(rarest == label), shown, random)
        place[rows] = (np.arange(len(rows)) + random.random()) / len(rows)
    order = np.argsort(place, kind="stable")
    front = _cover(order, shown)
    return np.concatenate([front, order[~np.isin(order, front)]])


def subset_size(images: int, fraction: float) -> int:
    """How many of ``images`` a fraction is, at least 1."""
    return max(1, round(fraction * images))


def write_subset(split: Split, fraction: float, seed: int, path: Path) -> Split:
    """Write the subset of a fraction as a COCO JSON; all of it is the split itself.

    Args:
        split: the data.
        fraction: of the images, above 0 and up to 1.
        seed: what the subset is drawn from; a larger fraction of the same seed holds all images of a smaller one.
        path: the file.

    Raises:
        DataError: the subset leaves a class without any image, or a class has none at all; both are named.
        ValueError: ``fraction`` is none.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction} must be above 0 and at most 1")
    if fraction == 1:
        return split
    index = AnnotationIndex.load(split.annotations)
    order = deal(index, seed)
    chosen = order[: subset_size(len(index), fraction)]
    shown = shown_classes(index)
    if left := _absent(index, shown[chosen]):
        least = len(_cover(order, shown))
        enough = f"{np.ceil(1000 * least / len(index)) / 1000:g} ({counted(least, 'image')})"
        raise DataError(
            f"{split.annotations}: {len(chosen)} of {counted(len(index), 'image')} (fraction {fraction:g}) leave class "
            f"{left} without an object: take a fraction of at least {enough}"
        )
    return write_split(split, set(index.image_ids[chosen].tolist()), path)


def _refuse_empty(index: AnnotationIndex, shown: NDArray[np.bool_]) -> None:
    if empty := _absent(index, shown):
        raise DataError(
            f"{index.path}: class {empty} has no object in any image: take it out of the categories, or add images"
        )


def _absent(index: AnnotationIndex, shown: NDArray[np.bool_]) -> str:
    """The classes that none of some images shows; nothing where there is none."""
    names = [repr(index.class_names[k]) for k in np.flatnonzero(shown.sum(0) == 0)]
    return ", ".join(names[:_NAMED]) + (f", ... ({len(names)} classes)" if len(names) > _NAMED else "")


def _apart(rows: NDArray[np.int64], shown: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Images in random order, but such that neighbors in it differ in their classes.

    Those with the same classes are put side by side, and then taken by van der Corput's sequence, which goes through
    the row in ever smaller strides; a random start makes every image equally likely to come first.
    """
    rows = random.permutation(rows)
    rows = rows[np.lexsort(shown[rows].T)]
    rows = np.roll(rows, int(random.integers(len(rows))))
    return rows[np.argsort(_bit_reversed(len(rows)), kind="stable")]


def _bit_reversed(count: int) -> NDArray[np.int64]:
    """(count,) the numbers 0..count-1 with their binary digits in reverse (van der Corput 1935)."""
    bits = max(1, int(count - 1).bit_length())
    numbers = np.arange(count)
    return np.asarray(sum(((numbers >> bit) & 1) << (bits - 1 - bit) for bit in range(bits)), np.int64)


def _cover(order: Sequence[int] | NDArray[np.int64], shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first images of ``order`` that together show every class, found from the rarest class on."""
    chosen: list[int] = []
    missing = shown.sum(0) > 0
    for label in np.argsort(shown.sum(0), kind="stable"):
        if missing[label]:
            chosen.append(next(int(i) for i in order if shown[i, label]))
            missing &= ~shown[chosen[-1]]
    return np.array(chosen, np.int64)
