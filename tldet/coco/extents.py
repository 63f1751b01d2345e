"""The rule for boxes at the border of an image: boxes without extent or outside are left out, others are clipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLAT, OUTSIDE, MOVED = (
    "of zero extent left out",
    "outside the image left out",
    "extending over the image border clipped",
)
_NOTABLE = 1  # pixels by which a box must be clipped to be counted


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
