"""Nested, class-stratified subsets of a COCO JSON: of two subsets, the larger contains the smaller.

All images are sorted into one order, a pure function of the seed; the subset of a fraction is the start of this order.
Images are grouped by their rarest class, and each group is spread evenly over the order, so that every class keeps its
fraction (iterative stratification, Sechidis et al. 2011, also begins with the rarest label). Within a group, images
with equal other classes are spread as well.
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
STREAM = 11  # of random numbers: other draws with the same seed differ
_NAMED = 5  # classes in a message


def stratified_order(index: AnnotationIndex, seed: int, *, absent: bool = False) -> NDArray[np.int64]:
    """Return an order of all images in which the first n images are a stratified subset, for every n.

    It starts with a few images that together show every class. Of a group of m images with the same rarest class, the
    first n of I images contain about n m / I.

    Args:
        index: the annotations.
        seed: random seed.
        absent: accept classes without an image.

    Returns:
        (I,) positions of images.

    Raises:
        DataError: a class has no image.
    """
    shown = shown_classes(index)
    if not absent:
        _reject_empty(index, shown)
    random = np.random.default_rng([seed, STREAM])
    rank = np.empty(len(index))
    rarest = rarest_classes(index)
    for label in np.unique(rarest):
        rows = _apart(np.flatnonzero(rarest == label), shown, random)
        rank[rows] = (np.arange(len(rows)) + random.random()) / len(rows)
    order = np.argsort(rank, kind="stable")
    front = _cover(order, shown)
    return np.concatenate([front, order[~np.isin(order, front)]])


def subset_size(images: int, fraction: float) -> int:
    """Return the number of images of a fraction, at least 1."""
    return max(1, round(fraction * images))


def write_subset(split: Split, fraction: float, seed: int, path: Path) -> Split:
    """Write a subset as a COCO JSON; fraction 1 returns the split itself.

    Args:
        split: the split.
        fraction: fraction of the images, above 0 and at most 1.
        seed: random seed; a larger fraction with the same seed contains all images of a smaller one.
        path: output file.

    Raises:
        DataError: a class has no image in the subset, or no image at all; the message names it.
        ValueError: ``fraction`` is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction} must be above 0 and at most 1")
    if fraction == 1:
        return split
    index = AnnotationIndex.load(split.annotations)
    order = stratified_order(index, seed)
    chosen = order[: subset_size(len(index), fraction)]
    shown = shown_classes(index)
    if left := _absent(index, shown[chosen]):
        least = len(_cover(order, shown))
        enough = f"{np.ceil(1000 * least / len(index)) / 1000:g} ({counted(least, 'image')})"
        raise DataError(
            f"{split.annotations}: {len(chosen)} of {counted(len(index), 'image')} (fraction {fraction:g}) contain no "
            f"object of class {left}; use a fraction of at least {enough}"
        )
    return write_split(split, set(index.image_ids[chosen].tolist()), path)


def _reject_empty(index: AnnotationIndex, shown: NDArray[np.bool_]) -> None:
    if empty := _absent(index, shown):
        raise DataError(
            f"{index.path}: class {empty} has no object in any image; remove it from the categories, or add images"
        )


def _absent(index: AnnotationIndex, shown: NDArray[np.bool_]) -> str:
    """Name the classes that no image shows; empty if there are none."""
    names = [repr(index.class_names[k]) for k in np.flatnonzero(shown.sum(0) == 0)]
    return ", ".join(names[:_NAMED]) + (f", ... ({len(names)} classes)" if len(names) > _NAMED else "")


def _apart(rows: NDArray[np.int64], shown: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Return images in a random order in which neighbors differ in their classes.

    Images are sorted by their classes and then taken in the order of van der Corput's sequence, which passes through
    the list in ever smaller strides. A random start makes every image equally likely to come first.
    """
    rows = random.permutation(rows)
    rows = rows[np.lexsort(shown[rows].T)]
    rows = np.roll(rows, int(random.integers(len(rows))))
    return rows[np.argsort(_bit_reversed(len(rows)), kind="stable")]


def _bit_reversed(count: int) -> NDArray[np.int64]:
    """Return the numbers 0..count-1 with their binary digits reversed, (count,) (van der Corput 1935)."""
    bits = max(1, int(count - 1).bit_length())
    numbers = np.arange(count)
    return np.asarray(sum(((numbers >> bit) & 1) << (bits - 1 - bit) for bit in range(bits)), np.int64)


def _cover(order: Sequence[int] | NDArray[np.int64], shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first images of ``order`` that together show every class, chosen from the rarest class on."""
    chosen: list[int] = []
    missing = shown.sum(0) > 0
    for label in np.argsort(shown.sum(0), kind="stable"):
        if missing[label]:
            chosen.append(next(int(i) for i in order if shown[i, label]))
            missing &= ~shown[chosen[-1]]
    return np.array(chosen, np.int64)
