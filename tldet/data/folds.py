"""Division of images into splits or folds: stratified by class, with all images of a group in the same one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tldet.data.index import AnnotationIndex
from tldet.data.splits import shown_classes
from tldet.errors import DataError
from tldet.text import counted

_Ints = NDArray[np.int64]


def join_groups(count: int, keys: Sequence[Sequence[Hashable]], pairs: Iterable[tuple[int, int]]) -> _Ints:
    """Return the group (I,) of each image; images with the same key, and the two of a pair, are in the same group.

    Args:
        count: number of images I.
        keys: for each kind of key, the (I,) keys of the images.
        pairs: positions of pairs of duplicate images.
    """
    parent = np.arange(count)

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = int(parent[one])
        return one

    links = list(pairs)
    for column in keys:
        firsts: dict[Hashable, int] = {}
        links += [(firsts.setdefault(key, position), position) for position, key in enumerate(column)]
    for one, two in links:
        low, high = sorted((root(one), root(two)))
        parent[high] = low
    roots = np.array([root(one) for one in range(count)], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def divide(index: AnnotationIndex, groups: _Ints, shares: Sequence[float], seed: int) -> _Ints:
    """Divide the images of a dataset, so that each part gets its fraction of the images and of each class.

    Args:
        index: the annotations.
        groups: (I,) group of each image; a group is not divided.
        shares: fraction of each part; they sum to 1.
        seed: random seed.

    Returns:
        (I,) number of the part of each image.

    Raises:
        DataError: there are fewer groups than parts.
    """
    sizes = np.bincount(groups)
    if len(sizes) < len(shares):
        raise DataError(
            f"{index.path}: {counted(len(index), 'image')} in {counted(len(sizes), 'group')} cannot be divided into "
            f"{counted(len(shares), 'part')}"
        )
    shown = np.zeros((len(sizes), len(index.class_names)), np.int64)
    np.add.at(shown, groups, shown_classes(index).astype(np.int64))
    return stratify(shown, sizes, shares, seed)[groups]


def stratify(shown: _Ints, sizes: _Ints, shares: Sequence[float], seed: int) -> _Ints:
    """Assign groups to parts by iterative stratification (Sechidis et al. 2011, algorithm 1), whole groups at a time.

    The groups of the rarest class are assigned first, large groups before small ones, each to the part that still needs
    the most images of the class.

    Args:
        shown: (G, K) number of images of each group that contain a class.
        sizes: (G,) number of images of each group.
        shares: (P,) fraction of each part.
        seed: random seed.

    Returns:
        (G,) number of the part of each group; no part is empty.
    """
    random = np.random.default_rng([seed, 11])
    share = np.asarray(shares, np.float64)[:, None]
    lacking, room = share * shown.sum(0), share[:, 0] * sizes.sum()
    part = np.full(len(sizes), -1, np.int64)
    order = random.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    while len(left := order[part[order] < 0]):
        present = (shown[left] > 0).sum(0)
        label = int(np.where(present > 0, present, len(sizes) + 1).argmin()) if present.any() else None
        chosen = left if label is None else left[shown[left, label] > 0]
        for group in chosen.tolist():
            needed = room if label is None else lacking[:, label]
            best = max(range(len(share)), key=lambda one: (needed[one], room[one], random.random()))
            part[group] = best
            lacking[best] -= shown[group]
            room[best] -= sizes[group]
    return _without_empty(part, sizes, len(share))


def _without_empty(part: _Ints, sizes: _Ints, parts: int) -> _Ints:
    """Move the smallest group of the part with most groups to each empty part."""
    for empty in np.flatnonzero(np.bincount(part, minlength=parts) == 0).tolist():
        most = np.flatnonzero(part == np.bincount(part, minlength=parts).argmax())
        part[most[sizes[most].argmin()]] = empty
    return part
