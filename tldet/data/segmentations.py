"""Instance masks of the objects of an annotation index."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import NAMED
from tldet.coco.segmentations import checked_rows
from tldet.data.index import AnnotationIndex
from tldet.data.masks import MaskPixels, decode_mask
from tldet.errors import DataError
from tldet.structures.image import Size
from tldet.text import counted

log = logging.getLogger(__name__)


class Segmentations:
    """Masks of the objects of an index; polygons of fewer than 3 points are dropped and counted in the log.

    Args:
        index: the annotations.

    Raises:
        DataError: a segmentation is neither polygons nor an RLE of its image; the message names the annotation.
    """

    def __init__(self, index: AnnotationIndex) -> None:
        self.index = index
        self.changed = without_degenerate(index)
        if self.changed:
            ids = ", ".join(str(key) for key in index.annotation_ids[list(self.changed)[:NAMED]])
            more = ", ..." if len(self.changed) > NAMED else ""
            text = "%s: polygons with fewer than 3 points dropped from %s (annotation %s%s)"
            log.warning(text, index.path, counted(len(self.changed), "segmentation"), ids, more)

    def present(self) -> NDArray[np.bool_]:
        """Return (A,) bool: True for objects that have a mask."""
        present = self.index.has_segmentation()
        present[[row for row, outline in self.changed.items() if outline is None]] = False
        return present

    def masks(self, rows: slice, size: Size) -> MaskPixels:
        """Return the masks (N, H, W) of the objects of an image of ``size`` (height, width)."""
        masks = [self._mask(row, size) for row in range(rows.start, rows.stop)]
        return np.stack(masks) if masks else np.zeros((0, *size), np.uint8)

    def _mask(self, row: int, size: Size) -> MaskPixels:
        try:
            segmentation = self.changed[row] if row in self.changed else self.index.segmentation(row)
            return decode_mask(segmentation, size)
        except DataError as error:
            raise DataError(f"{self.index.path}: annotation id {self.index.annotation_ids[row]} {error}") from None


def without_degenerate(index: AnnotationIndex) -> dict[int, Any]:
    """Return the segmentations that had polygons of fewer than 3 points, without these; None if nothing is left.

    Raises:
        DataError: a segmentation is neither polygons nor an RLE; the message names its annotation.
    """
    sizes = np.repeat(index.sizes, np.diff(index.offsets), axis=0)
    changed: dict[int, Any] = {}
    for row, kept, dropped, problem in checked_rows(index.raw, index.spans, index.file_rows, sizes):
        if problem:
            raise DataError(f"{index.path}: annotation id {index.annotation_ids[row]} {problem}")
        if dropped:
            changed[row] = kept
    return changed
