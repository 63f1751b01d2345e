"""Placement of labels on images with little overlap.

Letters in shapes: N labels, C candidate positions per label, S positions, B boxes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_Boxes = NDArray[np.float32]
ON_LABEL, ON_BOX, ON_EDGE = 30.0, 1.0, 0.5  # cost of covering labels, boxes, and edges of boxes
PREFERENCE = 0.02  # additional cost of each further candidate position
# Candidate positions. x: aligned with the left or right edge of the box, right of the box, left of the box;
# y: above, below, inside at the top, inside at the bottom, above with a line between.
_COLUMNS = [0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 0]
_ROWS = [0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3, 4]


def place_labels(sizes: Sequence[tuple[int, int]], boxes: _Boxes, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Choose the upper left corner (x, y) of each box's label.

    Among the candidate positions around its box, inside the image, each label gets the one that covers the least of
    earlier labels, boxes and box edges. If none covers anything, the label is above the upper left corner.

    Args:
        sizes: (height, width) of each label, most important first.
        boxes: (N, 4) xyxy pixels.
        shape: (height, width) of the image.
    """
    if not len(sizes):
        return []
    boxes = boxes.round()  # as they are drawn; a label that touches its box does not cover it
    spots = _candidates(np.asarray(sizes, np.float32), boxes, shape)  # (N, C, 4)
    cost = _covering(spots, boxes) + PREFERENCE * np.arange(spots.shape[1], dtype=np.float32)
    taken = np.zeros(shape, np.uint8)  # 1 under the labels placed so far
    corners = []
    rows = zip(sizes, cost.tolist(), cost.argsort(1).tolist(), spots[..., :2].astype(int).tolist(), strict=True)
    for (height, width), costs, order, choices in rows:
        left, top = _cheapest(((costs[i], choices[i]) for i in order), taken, height, width)
        taken[top : top + height, left : left + width] = 1
        corners.append((left, top))
    return corners


def _cheapest(spots: Iterable[tuple[float, list[int]]], taken: NDArray[np.uint8], height: int, width: int) -> list[int]:
    """Return the corner of lowest cost; candidates are in order of their cost without other labels."""
    least, best, scale = math.inf, list[int](), ON_LABEL / (height * width)
    for cost, corner in spots:
        if cost >= least:
            break
        left, top = corner
        cost += scale * cv2.countNonZero(taken[top : top + height, left : left + width])
        if cost < least:
            least, best = cost, corner
    return best


def _candidates(sizes: _Boxes, boxes: _Boxes, shape: tuple[int, int]) -> _Boxes:
    """Return candidates (N, C, 4): above, below, inside at top and bottom, beside the box; moved into the image."""
    h, w = sizes.T
    x0, y0, x1, y1 = boxes.T
    x = np.array((x0, x1 - w, x1, x0 - w))[_COLUMNS]  # (C, N)
    y = np.array((y0 - h, y1, y0, y1 - h, y0 - 2 * h))[_ROWS]
    x = x.clip(0, np.maximum(shape[1] - w, 0))
    y = y.clip(0, np.maximum(shape[0] - h, 0))
    corners: _Boxes = np.array((x, y, x + w, y + h), np.float32).transpose(2, 1, 0)
    return corners


def _covering(spots: _Boxes, boxes: _Boxes) -> NDArray[np.float32]:
    """Compute the cost (N, C) of covering boxes: covered fraction of each box or of the label, and crossed edges."""
    flat = spots.reshape(-1, 4)
    area = _area(flat)[:, None]
    inside = _overlap(flat, boxes)  # (N * C, N)
    crossed = np.count_nonzero(inside, axis=1) - np.count_nonzero(inside >= area, axis=1)
    inside /= np.minimum(_area(boxes), area)
    cost = ON_BOX * inside.sum(1) + ON_EDGE * crossed
    return np.asarray(cost.reshape(spots.shape[:2]), np.float32)


def _area(boxes: _Boxes) -> _Boxes:
    return np.asarray(np.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 1), np.float32)


def _overlap(spots: _Boxes, boxes: _Boxes) -> _Boxes:
    """Compute the areas (S, B) of intersection."""
    width = np.minimum(spots[:, 2, None], boxes[:, 2])
    width -= np.maximum(spots[:, 0, None], boxes[:, 0])
    height = np.minimum(spots[:, 3, None], boxes[:, 3])
    height -= np.maximum(spots[:, 1, None], boxes[:, 1])
    np.maximum(width, 0, out=width)
    width *= np.maximum(height, 0, out=height)
    return np.asarray(width, np.float32)
