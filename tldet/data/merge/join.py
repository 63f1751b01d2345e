"""Joining of images and objects of several datasets: equal images, duplicate objects, ids and annotated classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.ids import NO_ID, ODD_ID, renumber_repeated
from tldet.data.merge.classes import labeled_classes
from tldet.data.merge.images import same_images
from tldet.data.merge.objects import find_duplicates
from tldet.data.merge.source import MergeSource
from tldet.data.tracking import Track
from tldet.errors import DataError

REFUSED = (0, NO_ID, ODD_ID)  # pycocotools treats annotation id 0 as "no match"


@dataclass(frozen=True)
class Joined:
    """One split of a merged dataset: P image records and A objects of its sources, concatenated.

    Attributes:
        sources: the datasets.
        tables: for each source, the merged id of each category id.
        image_of: (P,) int64, merged image 0..M-1 of each record, in order of first appearance.
        firsts: (M,) int64, first record of each merged image.
        image_ids: (M,) int64.
        labeled: (M) merged ids of the classes annotated on each image.
        image_positions: (A,) int64, merged image of each object.
        category_ids: (A,) int64, merged.
        duplicates: (left out, kept) pairs of equal objects.
        kept: (A,) bool, True for objects that are kept.
        annotation_ids: (A,) int64, unique among the kept objects.
    """

    sources: Sequence[MergeSource]
    tables: Sequence[Mapping[int, int]]
    image_of: NDArray[np.int64]
    firsts: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    labeled: Sequence[frozenset[int]]
    image_positions: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    duplicates: Sequence[tuple[int, int]]
    kept: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]

    def record(self, position: int) -> tuple[int, int]:
        """Return the source of an image record, and its position there."""
        return _within(position, [len(source.images) for source in self.sources])

    def object(self, position: int) -> tuple[int, int]:
        """Return the source of an object, and its position there."""
        return _within(position, [len(source.objects) for source in self.sources])

    def paths(self) -> list[Path]:
        """Return the paths of the M merged images."""
        records = [self.record(position) for position in self.firsts.tolist()]
        return [self.sources[n].split.images / self.sources[n].file_names[row] for n, row in records]

    @property
    def unlabeled(self) -> NDArray[np.bool_]:
        """(A,) bool, True for kept objects of a class that is not annotated on their image."""
        of = zip(self.image_positions.tolist(), self.category_ids.tolist(), strict=True)
        return self.kept & ~np.fromiter((c in self.labeled[p] for p, c in of), np.bool_, len(self.image_positions))


def join(sources: Sequence[MergeSource], tables: Sequence[Mapping[int, int]], same: NDArray[np.int64]) -> Joined:
    """Join equal images, keep one of each pair of duplicate objects, and assign ids.

    Args:
        sources: one or more datasets; earlier ones take precedence in ids and fields.
        tables: for each source, the merged id of each category id.
        same: (P,) int64, equal for records of one image.

    Raises:
        DataError: two records of one image state different sizes.
    """
    firsts, image_of = _unite(same)
    _check_sizes(sources, firsts, image_of)
    starts = np.cumsum([0, *(len(source.images) for source in sources)])
    records = np.concatenate([source.image_positions + start for source, start in zip(sources, starts, strict=False)])
    image_positions = image_of[records]
    category_ids = _mapped(sources, tables)
    groups = 2 * np.unique(category_ids, return_inverse=True)[1] + _all(sources, "crowd")
    duplicates = find_duplicates(
        image_positions, records, groups, _all(sources, "boxes"), _all(sources, "has_segmentation")
    )
    kept = np.ones(len(image_positions), np.bool_)
    kept[[left for left, _ in duplicates]] = False
    annotation_ids = _all(sources, "stated_ids").copy()
    annotation_ids[kept] = renumber_repeated(annotation_ids[kept], REFUSED)
    image_ids = renumber_repeated(_all(sources, "image_ids")[firsts])
    labeled = _labeled(sources, tables, image_of)
    return Joined(
        sources,
        tables,
        image_of,
        firsts,
        image_ids,
        labeled,
        image_positions,
        category_ids,
        duplicates,
        kept,
        annotation_ids,
    )


def alike(sources: Sequence[MergeSource], track: Track = iter, *, missing: bool = False) -> list[NDArray[np.int64]]:
    """Return for each source a number per image (I,), equal for equal images; see :func:`same_images`."""
    lengths = [len(source.images) for source in sources]
    paths = [path for source in sources for path in source.paths]
    same = same_images(paths, np.repeat(np.arange(len(sources)), lengths), track, missing=missing)
    return np.split(same, np.cumsum(lengths)[:-1])


def _within(position: int, lengths: Sequence[int]) -> tuple[int, int]:
    for number, length in enumerate(lengths):
        if position < length:
            return number, position
        position -= length
    raise IndexError(position)


def _all(sources: Sequence[MergeSource], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(source, name) for source in sources])


def _unite(same: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first record of each image and the image of each record; images in order of first appearance."""
    _, firsts, image_of = np.unique(same, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return firsts[order], rank[image_of]


def _check_sizes(sources: Sequence[MergeSource], firsts: NDArray[np.int64], image_of: NDArray[np.int64]) -> None:
    sizes = _all(sources, "sizes")
    wrong = np.flatnonzero((sizes != sizes[firsts[image_of]]).any(1))
    if not len(wrong):
        return
    statements = []
    for record in (int(wrong[0]), int(firsts[image_of[wrong[0]]])):
        number, row = _within(record, [len(source.images) for source in sources])
        height, width = sizes[record]
        statements.append(f"{sources[number].path} states {width} x {height} for {sources[number].image(row)}")
    raise DataError(f"{statements[0]}, but {statements[1]}, which is the same image; correct one of them")


def _mapped(sources: Sequence[MergeSource], tables: Sequence[Mapping[int, int]]) -> NDArray[np.int64]:
    """Return the merged category ids (A,)."""
    pairs = zip(sources, tables, strict=True)
    return np.array([table[old] for source, table in pairs for old in source.category_ids.tolist()], np.int64)


def _labeled(
    sources: Sequence[MergeSource], tables: Sequence[Mapping[int, int]], image_of: NDArray[np.int64]
) -> list[frozenset[int]]:
    """Return the annotated classes of each merged image, the union over its records."""
    merged: list[frozenset[int]] = [frozenset()] * (int(image_of.max()) + 1)
    stated = chain.from_iterable(((t, one) for one in s.labeled) for s, t in zip(sources, tables, strict=True))
    alike: dict[frozenset[int], frozenset[int]] = {}  # hundreds of thousands of images share a few sets
    known: dict[tuple[int, frozenset[int] | None], frozenset[int]] = {}
    for image, (table, one) in zip(image_of.tolist(), stated, strict=True):
        if (id(table), one) not in known:
            known[id(table), one] = labeled_classes(table, one)
        union = merged[image] | known[id(table), one]
        merged[image] = alike.setdefault(union, union)
    return merged
