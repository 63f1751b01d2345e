"""Statistics of the splits of a run: images, objects and classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from tldet.data.dataset import CocoDataset
from tldet.errors import DataError
from tldet.text import counted
from tldet.workflows.training.datasets import AnyDataset, build_dataset

log = logging.getLogger(__name__)
_SHOWN = 5  # classes in a line


def split_lines(train: AnyDataset, val: AnyDataset | None, test: Mapping[str, Any] | None) -> list[str]:
    """Log and return a line for each split of a run; the log names the image folder too.

    Args:
        train: the training split.
        val: the validation split.
        test: config section of the test split, which training does not use; errors are logged as a warning.
    """
    splits, problem = {"train": train, **({} if val is None else {"val": val})}, ""
    if test is not None:
        try:
            splits["test"] = build_dataset(test, 0, train.class_names, path="data.test")
        except DataError as error:
            problem = str(error)
    lines = [split_line(name, split) for name, split in splits.items()]
    for line, split in zip(lines, splits.values(), strict=True):
        log.info("%s%s", line, f"; images in {split.folder}" if isinstance(split, CocoDataset) else "")
    if problem:
        log.warning("test split: %s", problem)
    return lines


def split_line(name: str, dataset: AnyDataset) -> str:
    """Return ``train: 205 images, 2,912 objects of 3 classes (RBC: 2,550, WBC: 210, Platelets: 152)``."""
    index, positions = dataset.index, dataset.positions
    images = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    used = np.isin(images, positions)
    rows = used & ~index.crowd
    objects = np.bincount(index.labels[rows], minlength=len(index.class_names))
    empty = len(positions) - len(np.unique(images[rows]))
    crowd = int((used & index.crowd).sum())
    notes = [f"{empty:,} without objects"] if empty else []
    notes += [counted(crowd, "crowd region")] if crowd else []
    extra = f" ({', '.join(notes)})" if notes else ""
    return (
        f"{name}: {counted(len(positions), 'image')}{extra}, {counted(int(objects.sum()), 'object')} of "
        f"{_classes(dict(zip(index.class_names, objects.tolist(), strict=True)))}"
    )


def _classes(objects: Mapping[str, int]) -> str:
    """Return the number of classes with objects, and the objects of the most frequent and of the rarest class."""
    found = sorted(((name, number) for name, number in objects.items() if number), key=lambda one: -one[1])
    of_all = counted(len(objects), "class", "classes")
    head = of_all if len(found) == len(objects) else f"{len(found)} of {of_all}"
    shown = [f"{name}: {number:,}" for name, number in found]
    if len(shown) > _SHOWN:
        shown = [*shown[: _SHOWN - 1], "...", shown[-1]]
    return f"{head} ({', '.join(shown)})" if shown else head
