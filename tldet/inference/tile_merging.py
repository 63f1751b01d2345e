"""Merging the detections of overlapping tiles.

A view is a tile or the whole image. Objects that fit into the overlap are complete in at least one tile, and are taken
from tiles only; larger ones are also taken from the whole image. A detection that touches the border between two tiles
may be truncated. It is dropped if the tile on the other side contains the whole object; otherwise the truncated
detections of both sides are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.structures.masks import InstanceMasks, on_boxes

_SAME_OBJECT = 0.5  # least IoU, within the area that two views share, of two detections of the same object
COVERED = 0.7  # least fraction of a truncated detection inside a complete one of the same object
MARGIN = 0.125  # largest distance of a detection that touches the border of a tile, as a fraction of the overlap
_Boxes = NDArray[np.float64]
_Rows = NDArray[np.int64]


class Window(NamedTuple):
    """Part of an image, xyxy in pixels."""

    x0: int
    y0: int
    x1: int
    y1: int


class TileMerger:
    """Detections of all tiles of an image, and of the whole image.

    Args:
        found: detections of each tile in pixels of the tile, then those of the whole image.
        windows: the tiles, a grid.
        size: (height, width) of the image.
        shared: minimum overlap of the tiles in pixels.
        per_class: if True, detections of different classes are never merged.
    """

    def __init__(
        self, found: Sequence[Detections], windows: Sequence[Window], size: Size, *, shared: int, per_class: bool
    ) -> None:
        views = [*windows, Window(0, 0, size[1], size[0])]
        self.found = Detections.merge([_moved(one, view, size) for one, view in zip(found, views, strict=True)])
        order = torch.cat([one.scores for one in found]).argsort(descending=True, stable=True)  # as merge does
        owners = torch.cat([torch.full((len(one),), number) for number, one in enumerate(found)])[order].numpy()
        self._views: _Boxes = np.array(views, np.float64)[owners]
        self._boxes: _Boxes = self.found.boxes.double().numpy()
        self._labels: _Rows = self.found.labels.numpy()
        self._from_tile = owners < len(windows)
        self._windows, self._size, self._shared, self._per_class = windows, size, shared, per_class
        self._margin = max(1.0, MARGIN * shared)

    def merged(self) -> Detections:
        """Return the detections of the image, best score first."""
        touched = self._touched()
        rows = np.flatnonzero(~self._shown_across(touched) & (self._from_tile | ~self._small()))
        cut = touched[rows].any(1)
        whole = self._distinct(rows[~cut])
        joined = [self._united(group) for group in self._groups(rows[cut]) if not self._is_part(group, whole)]
        return Detections.merge([self.found[whole], *joined])

    def _touched(self) -> NDArray[np.bool_]:
        """Return (N, 4) bool: True if a detection touches the left, upper, right, lower border to another tile."""
        inner = self._views != np.array([0, 0, self._size[1], self._size[0]])
        return np.asarray((np.abs(self._boxes - self._views) <= self._margin) & inner)

    def _shown_across(self, touched: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return (N,) bool: True if the tile across a touched border contains the detection completely."""
        across = np.zeros(len(touched), bool)
        for axis in (0, 1):
            low = np.array(sorted({window[axis] for window in self._windows}))  # borders of the tiles along the axis
            high = np.array(sorted({window[axis + 2] for window in self._windows}))
            position = np.searchsorted(low, self._views[:, axis])
            before, after = high[np.maximum(position - 1, 0)], low[np.minimum(position + 1, len(low) - 1)]
            across |= touched[:, axis] & (self._boxes[:, axis + 2] <= before - self._margin)
            across |= touched[:, axis + 2] & (self._boxes[:, axis] >= after + self._margin)
        return across

    def _small(self) -> NDArray[np.bool_]:
        """Return (N,) bool: True for boxes that fit into the overlap, so that some tile contains them completely."""
        return np.asarray((self._boxes[:, 2:] - self._boxes[:, :2] <= self._shared).all(1))

    def _distinct(self, rows: _Rows) -> list[int]:
        """Return the rows without duplicates of a detection of another view with a higher score."""
        kept: list[int] = []
        for row in rows.tolist():
            if not self._same(row, kept).any():
                kept.append(row)
        return kept

    def _groups(self, rows: _Rows) -> list[list[int]]:
        """Group the truncated detections of each object."""
        groups: list[list[int]] = []
        for row in rows.tolist():
            own = [group for group in groups if self._same(row, group).any()]
            groups = [group for group in groups if group not in own]
            groups.append([*(one for group in own for one in group), row])
        return groups

    def _is_part(self, group: list[int], whole: list[int]) -> bool:
        """Return True if truncated detections belong to the object of a complete one."""
        box, objects = _around(self._boxes[group]), self._alike(group[0], whole)
        covered = _shared_area(box, self._boxes[objects]) / max(float(_area(box)), 1e-9)
        return bool((covered >= COVERED).any()) or all(self._same(row, whole).any() for row in group)

    def _united(self, group: list[int]) -> Detections:
        """Merge truncated detections into one, with the class and score of the best one."""
        parts = self.found[sorted(group)]
        boxes = torch.from_numpy(_around(self._boxes[group])).to(parts.boxes)[None]
        best, masks = parts[:1], None
        if isinstance(parts.masks, InstanceMasks):
            patches = on_boxes(parts.masks, boxes.expand(len(parts), 4)).amax(0, keepdim=True)
            masks = replace(parts.masks, patches=patches, boxes=boxes)
        return replace(best, boxes=boxes, masks=masks)

    def _alike(self, row: int, others: Sequence[int]) -> _Rows:
        """Return the rows among ``others`` with the class of ``row``; all of them if classes are ignored."""
        rows = np.array(others, np.int64)
        return rows[self._labels[rows] == self._labels[row]] if self._per_class else rows

    def _same(self, row: int, others: Sequence[int]) -> NDArray[np.bool_]:
        """Return bool for each row of :meth:`_alike` from another view: True if it is the same object as ``row``."""
        rows = self._alike(row, others)
        rows = rows[(self._views[rows] != self._views[row]).any(1)]
        mine, theirs = self._views[row], self._views[rows]
        low, high = np.maximum(mine[:2], theirs[:, :2]), np.minimum(mine[2:], theirs[:, 2:])
        limits = np.concatenate([low, low], 1), np.concatenate([high, high], 1)
        own, other = (np.clip(boxes, *limits) for boxes in (self._boxes[row][None], self._boxes[rows]))
        shared = _shared_area(own, other)
        return np.asarray(shared >= _SAME_OBJECT * np.maximum(_area(own) + _area(other) - shared, 1e-9))


def _moved(found: Detections, view: Window, size: Size) -> Detections:
    """Return the detections of a view in pixels of the image."""
    boxes = found.boxes + torch.tensor([view.x0, view.y0, view.x0, view.y0], dtype=found.boxes.dtype)
    masks = found.masks.placed(boxes, size) if isinstance(found.masks, InstanceMasks) else None
    return replace(found, boxes=boxes, masks=masks)


def _around(boxes: _Boxes) -> _Boxes:
    """Return the smallest box (4,) around boxes (N, 4)."""
    return np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])


def _area(boxes: _Boxes) -> _Boxes:
    return np.asarray((boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(-1))


def _shared_area(one: _Boxes, boxes: _Boxes) -> _Boxes:
    """Return the intersection areas (N,) of boxes (N, 4) with one box (4,), or with the N boxes of ``one``."""
    low, high = np.maximum(one[..., :2], boxes[..., :2]), np.minimum(one[..., 2:], boxes[..., 2:])
    return np.asarray((high - low).clip(min=0).prod(-1))
