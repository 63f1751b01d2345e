"""Checks of boxes against their images: boxes in another format, and boxes outside of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError

UNIT = 1.01  # largest coordinate of a normalized box, with some tolerance
LEAST_SIDE = 10  # pixels; boxes of smaller images are not checked, they may really be one pixel large
SURE_NORMALIZED, SURE_CORNERS = 3, 10  # number of boxes from which a wrong format is an error, not a warning
OVER = 0.05  # fraction of the image side; a box that extends farther outside is wrong, not just imprecise
_SHARE = 0.2  # fraction of boxes extending outside their image above which they are taken for corners
_MOST = 0.9  # fraction of boxes that lie inside as corners; the others may be damaged
FLAT, OUTSIDE, MOVED = (
    "of zero extent left out",
    "outside the image left out",
    "extending over the image border clipped",
)
_NOTABLE = 1  # pixels by which a box must be clipped to be counted
_NOT_COCO = "must be [x, y, width, height] in pixels"


def require_coco_boxes(
    name: str, noun: str, boxes: NDArray[np.float64], sizes: NDArray[np.int64], areas: NDArray[np.float64] | None = None
) -> list[str]:
    """Reject boxes that are all normalized or corners; warn if only some may be.

    Args:
        name: name of the file in messages.
        noun: plural noun for the boxes in messages.
        boxes: (N, 4) as they are in the file.
        sizes: (N, 2) int64, (height, width) of each box's image; 0 for an unknown size.
        areas: (N,) areas in the file, NaN if missing.

    Returns:
        Warnings about suspicious boxes that are too few to be sure.

    Raises:
        DataError: the boxes are in another format.
    """
    longest, sides = np.maximum(*sizes.T), boxes[:, 2:].T
    rows = (sides[0] > 0) & (sides[1] > 0) & ((longest > LEAST_SIDE) | (longest == 0))
    if not rows.all():
        boxes, sizes, areas = boxes[rows], sizes[rows], None if areas is None else areas[rows]
    small = np.flatnonzero((boxes[:, 2] <= UNIT) & (boxes[:, 3] <= UNIT))
    count = int((np.abs(boxes[small]) <= UNIT).all(1).sum())
    if len(boxes) and count == len(boxes):
        return _reject_if_sure(
            name,
            f"all {count} {noun} lie within 0..1: they seem to be normalized but {_NOT_COCO}",
            count >= SURE_NORMALIZED,
        )
    warnings = []
    if count:
        warnings.append(f"{count} of {len(boxes)} {noun} lie within 0..1 and may be normalized; they {_NOT_COCO}")
    if (what := _corners(boxes, sizes, areas)) is not None:
        text = f"{noun} seem to be corners [x0, y0, x1, y1] ({what}) but {_NOT_COCO}"
        warnings += _reject_if_sure(name, text, len(boxes) >= SURE_CORNERS)
    return warnings


def _reject_if_sure(name: str, text: str, sure: bool) -> list[str]:
    if sure:
        raise DataError(f"{name}: {text}; convert them")
    return [text]


def _corners(boxes: NDArray[np.float64], sizes: NDArray[np.int64], areas: NDArray[np.float64] | None) -> str | None:
    """Return the reason why boxes seem to be corners; None if they do not."""
    known = (sizes[:, 0] > 0) & (sizes[:, 1] > 0)
    if ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))[known].sum() < _MOST * known.sum():
        return None
    boxes, sides = boxes[known], sizes[known][:, ::-1].astype(np.float64)
    inside = (boxes[:, 2:] > boxes[:, :2]).all(1) & (boxes[:, 2:] <= sides + 1).all(1) & (boxes >= -1).all(1)
    if not len(boxes) or inside.mean() < _MOST:
        return None
    over = (boxes[:, :2] + boxes[:, 2:] > sides * (1 + OVER) + 1).any(1)
    if over.mean() > _SHARE:
        count = "none" if inside.all() else str(int((~inside).sum()))
        return (
            f"as widths and heights, {int(over.sum())} of {len(boxes)} extend outside their image; as corners, {count}"
        )
    if areas is None or not inside.all():
        return None
    stated = areas[known]
    as_corners, as_sides = (boxes[:, 2:] - boxes[:, :2]).prod(1), boxes[:, 2:].prod(1)
    fits = np.isclose(stated, as_corners, rtol=1e-3) & ~np.isclose(stated, as_sides, rtol=1e-2)
    return "every 'area' fits corners only" if fits.all() else None


@dataclass(frozen=True)
class Extents:
    """Boxes of a dataset, compared with their images.

    Attributes:
        clipped: (A, 4) float32 xyxy pixels.
        flat: (A,) bool, boxes without extent.
        outside: (A,) bool, boxes without extent inside the image.
        moved: (A,) bool, kept boxes that were clipped by more than a pixel.
    """

    clipped: NDArray[np.float32]
    flat: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    moved: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(A,) bool, boxes that are used."""
        return np.asarray(~(self.flat | self.outside), np.bool_)


def extents(boxes: NDArray[np.float32], xywh: NDArray[np.float64], sizes: NDArray[np.int32]) -> Extents:
    """Compare boxes with their images.

    Args:
        boxes: (A, 4) xyxy pixels.
        xywh: (A, 4) the same boxes as stated.
        sizes: (A, 2) (height, width) of the image of each box.
    """
    limits = sizes[:, ::-1].astype(np.float32)
    clipped = np.clip(boxes, 0, np.concatenate([limits, limits], 1))
    flat = (xywh[:, 2:] == 0).any(1) | (boxes[:, 2:] <= boxes[:, :2]).any(1)
    outside = ~flat & (clipped[:, 2:] <= clipped[:, :2]).any(1)
    moved = (np.abs(clipped - boxes) > _NOTABLE).any(1) & ~flat & ~outside
    return Extents(clipped, flat, outside, moved)
