"""Statistics of a split: tables and plots of classes, object sizes, aspect ratios and objects per image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.data.index import AnnotationIndex
from tldet.visualize.page.plots import Plot, Series
from tldet.visualize.page.tables import Table

_SIDES = (8, 16, 32, 64, 96, 128, 256, 512)  # pixels
_RATIOS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)  # width / height
_COUNTS = (1, 2, 3, 5, 9, 17, 33, 65)  # objects


def class_table(index: AnnotationIndex) -> Table:
    """Return a table with one row per class: number of objects, number of images, and object sizes."""
    images = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    sides = object_sides(index)
    rows: list[list[str | int | float | None]] = []
    for label, name in enumerate(index.class_names):
        mine = (index.labels == label) & ~index.crowd
        low, middle = np.quantile(sides[mine], [0.1, 0.5]).round().astype(int).tolist() if mine.any() else (None, None)
        rows.append([name, int(mine.sum()), len(np.unique(images[mine])), low, middle])
    columns = ["class", "objects", "images", "10th percentile of size (px)", "median size (px)"]
    return Table("classes", "Classes", columns, rows, "Size: square root of the area of the box.")


def object_sides(index: AnnotationIndex) -> NDArray[np.float64]:
    """Return the square root of the area of each box (A,), in pixels."""
    boxes = index.boxes.astype(np.float64)
    return np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def plots(index: AnnotationIndex) -> list[Plot]:
    """Return the distributions of object size, aspect ratio and objects per image."""
    boxes = index.boxes[~index.crowd].astype(np.float64)
    ratios = (boxes[:, 2] - boxes[:, 0]) / np.maximum(boxes[:, 3] - boxes[:, 1], 1e-9)
    images = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    counts = np.bincount(images[~index.crowd], minlength=len(index))
    found = []
    if len(boxes):
        found += [
            _shares("sizes", "Object size", "fraction of objects", object_sides(index)[~index.crowd], _SIDES, " px"),
            _shares("ratios", "Aspect ratio (width / height)", "fraction of objects", ratios, _RATIOS, ""),
        ]
    return [*found, _shares("counts", "Objects per image", "fraction of images", counts, _COUNTS, "")]


def _shares(name: str, title: str, label: str, values: NDArray[Any], edges: Sequence[float], unit: str) -> Plot:
    """Return a bar plot of the fraction of values in each interval."""
    numbers = np.bincount(np.digitize(values, edges), minlength=len(edges) + 1) / max(len(values), 1)
    inner = [_interval(low, high, name == "counts") for low, high in pairwise(edges)]
    first = "0" if name == "counts" else f"below {edges[0]:g}"
    names = [f"{text}{unit}" for text in (first, *inner, f"{edges[-1]:g} or more")]
    return Plot(name, title, label, title[0].lower() + title[1:], [Series("", names, numbers.tolist())], kind="bars")


def _interval(low: float, high: float, whole: bool) -> str:
    if not whole:
        return f"{low:g} to {high:g}"
    return f"{low:g}" if high - low == 1 else f"{low:g} to {high - 1:g}"
