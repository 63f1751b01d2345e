"""Splitting one COCO JSON into a training and a validation split."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tldet.coco.raw import read_part
from tldet.data.file_names import resolve_names
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.merge.images import same_images
from tldet.errors import DataError
from tldet.system.output import write_json
from tldet.text import counted

log = logging.getLogger(__name__)
_NAMED = 10  # classes in a message


def split_one(split: Split, out: Path, *, seed: int, share: float = 0.2) -> tuple[Split, Split]:
    """Split one JSON by images into a training and a validation split, reproducible by ``seed``.

    Identical images (the same file, or files with the same bytes) are put in the same split. Validation gets at least
    one image of every class that has several, as far as its size permits; the remaining images are stratified by their
    rarest class. The only image of a class stays in training.

    Args:
        split: the dataset to split.
        out: output directory of the two JSON files.
        seed: random seed.
        share: fraction of the images for validation.

    Raises:
        DataError: the images cannot be split, or ``out`` cannot be written.
    """
    index = AnnotationIndex.load(split.annotations)
    if len(index) < 2:
        raise DataError(
            f"{split.annotations}: at least 2 images are needed for training and validation, found {len(index)}"
        )
    shown = shown_classes(index)
    groups = _equal_images(split, index)
    sizes = np.bincount(groups)
    shown_in = np.zeros((len(sizes), shown.shape[1]), np.bool_)
    np.logical_or.at(shown_in, groups, shown)
    val = _draw(shown_in, sizes, min(max(1, round(share * len(index))), len(index) - 1), seed)[groups]
    if not val.any():
        why = "all its images are identical" if len(sizes) == 1 else "every image is the only image of some class"
        raise DataError(f"{split.annotations}: cannot be split into training and validation: {why}; use --val")
    chosen = {"train": index.image_ids[~val], "val": index.image_ids[val]}
    written = [write_split(split, set(ids.tolist()), out / f"{name}.json") for name, ids in chosen.items()]
    counts = counted(int((~val).sum()), "image"), int(val.sum())
    log.info("%s: split into %s for training and %d for validation", split.annotations, *counts)
    _report_absent(split, index, shown, val)
    return written[0], written[1]


def _equal_images(split: Split, index: AnnotationIndex) -> NDArray[np.int64]:
    """Return the number (I,) of each image's group; identical images share a group."""
    paths = [split.images / name for name in resolve_names(split.images, index.file_names, split.annotations)]
    same = same_images(paths, np.arange(len(paths)), missing=True)
    return np.unique(same, return_inverse=True)[1].astype(np.int64)


def _draw(shown: NDArray[np.bool_], sizes: NDArray[np.int64], target: int, seed: int) -> NDArray[np.bool_]:
    """Choose groups for validation.

    Args:
        shown: (G, K) bool, True if a group of identical images contains a class.
        sizes: (G,) number of images of each group.
        target: number of images for validation.
        seed: random seed.

    Returns:
        (G,) bool; all False if no group can be spared.
    """
    order = _spread(shown, np.random.default_rng([seed, 7]))
    left, taken = shown.sum(0), np.zeros(len(sizes), np.bool_)

    def take(group: int, room: int) -> bool:
        spared = not taken[group] and sizes[group] <= room and bool((left[shown[group]] > 1).all())
        if spared:
            taken[group] = True
            left[shown[group]] -= 1
        return spared

    for label in np.argsort(shown.sum(0), kind="stable").tolist():
        if not (shown[:, label] & taken).any():
            next((g for g in order[shown[order, label]].tolist() if take(g, target - int(sizes[taken].sum()))), None)
    room = target - int(sizes[taken].sum())
    for group in order.tolist():
        if not room:
            break
        room -= int(sizes[group]) * take(group, room)
    if not taken.any():  # every group is larger than the validation split
        next(
            (g for g in order[np.argsort(sizes[order], kind="stable")].tolist() if take(g, int(sizes.sum()) - 1)), None
        )
    return taken


def _spread(shown: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Return a random order of groups that spreads the groups of each rarest class evenly."""
    frequency = shown.sum(0)
    rarest = np.where(shown, frequency, np.iinfo(np.int64).max).argmin(1) if shown.shape[1] else np.zeros(len(shown))
    rarest = np.where(shown.any(1), rarest, -1)
    rank = np.empty(len(shown))
    for label in np.unique(rarest):
        rows = random.permutation(np.flatnonzero(rarest == label))
        rank[rows] = (np.arange(len(rows)) + random.random()) / len(rows)
    return np.argsort(rank, kind="stable")


def _report_absent(split: Split, index: AnnotationIndex, shown: NDArray[np.bool_], val: NDArray[np.bool_]) -> None:
    """Warn about classes without an image in the validation split."""
    absent = np.flatnonzero(shown.any(0) & ~shown[val].any(0))
    if not len(absent):
        return
    counts = shown.sum(0)
    names = [f"{index.class_names[k]} ({counted(int(counts[k]), 'image')})" for k in absent[:_NAMED].tolist()]
    more = f", ... ({len(absent)} classes)" if len(absent) > _NAMED else ""
    text = "%s: classes without a validation image, which are not evaluated: %s%s"
    log.warning(text, split.annotations, ", ".join(names), more)


def shown_classes(index: AnnotationIndex) -> NDArray[np.bool_]:
    """Return (I, K) bool: True if an image contains an object of a class. Crowd regions do not count."""
    shown = np.zeros((len(index), len(index.class_names)), np.bool_)
    images = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    shown[images[~index.crowd], index.labels[~index.crowd]] = True
    return shown


def rarest_classes(index: AnnotationIndex) -> NDArray[np.int64]:
    """Return the label (I,) of the rarest class on every image; -1 for an image without objects."""
    frequency = np.bincount(index.labels, minlength=len(index.class_names))
    labels = [index.labels[index.rows(i)] for i in range(len(index))]
    return np.array([found[frequency[found].argmin()] if len(found) else -1 for found in labels], np.int64)


def write_split(split: Split, image_ids: Collection[int], path: Path) -> Split:
    """Write some images of a JSON and their annotations, unchanged, to a new JSON.

    Raises:
        DataError: the file cannot be written.
    """
    write_json(path, read_part(split.annotations, lambda image: image.id in image_ids))
    return Split(path, split.images)
