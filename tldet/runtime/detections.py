"""Detections on an image as numpy arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import counted
from .image_types import ImageArray
from .masks import MaskPatches


@dataclass(frozen=True, repr=False, eq=False)
class NumpyDetections:
    """Detections on one image, best score first.

    Attributes:
        boxes: (N, 4) float32 xyxy in pixels of the original image.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64, indices into ``class_names``.
        class_names: name of each label.
        category_ids: category id of each label in the dataset.
        patches: masks on a grid in each box, as the detector predicts them; None for a box detector.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    class_names: Sequence[str]
    category_ids: Sequence[int]
    patches: MaskPatches | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: NDArray[Any] | Sequence[int] | slice) -> NumpyDetections:
        """Select detections by a bool mask, indices or a slice."""
        chosen = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(chosen, slice) and not chosen.size:
            chosen = np.zeros(0, np.int64)
        parts = self.boxes[chosen], self.scores[chosen], self.labels[chosen]
        patches = None if self.patches is None else self.patches[chosen]
        return replace(self, boxes=parts[0], scores=parts[1], labels=parts[2], patches=patches)

    def rescored(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> NumpyDetections:
        """Select detections by index and replace their scores."""
        return replace(self[rows], scores=scores)

    @property
    def names(self) -> list[str]:
        """Class name of each detection."""
        return [self.class_names[label] for label in self.labels.tolist()]

    @property
    def masks(self) -> NDArray[np.uint8] | None:
        """Masks (N, H, W) uint8, 0 or 1, at the size of the original image (N * H * W bytes); None without masks."""
        return None if self.patches is None else self.patches.dense()

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Convert to COCO results (bbox is ``[x, y, width, height]``), with an RLE ``segmentation`` if there are masks.

        Args:
            image_id: id of the image in the dataset.
        """
        return coco_results(self, image_id, self.category_ids, None if self.patches is None else self.patches.rles())

    def draw(self, image: ImageArray | str | PathLike[str] | bytes, *, scores: bool = True) -> ImageArray:
        """Draw boxes, masks and labels on a copy of the image.

        Args:
            image: the original image: a path, encoded content, or an (H, W, 3) uint8 RGB array.
            scores: write the scores after the class names.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            DataError: the image cannot be read.
        """
        from .arrays import open_array
        from .drawing import draw_objects
        from .text import paint_ascii

        windows = None if self.patches is None else self.patches[::-1].windows()
        canvas = np.array(open_array(image, None).image)
        values = self.scores.tolist() if scores else None
        draw_objects(canvas, self.boxes, self.labels.tolist(), self.names, values, windows, paint_ascii)
        return canvas

    def __repr__(self) -> str:
        kinds = ", ".join(f"{number} {name}" for name, number in Counter(self.names).most_common(5))
        more = ", ..." if len(set(self.labels.tolist())) > 5 else ""
        return f"{type(self).__name__}({counted(len(self), 'object')}{': ' if kinds else ''}{kinds}{more})"


def coco_results(
    found: Any, image_id: int | str, category_ids: Sequence[int], rles: Sequence[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return COCO results.

    Args:
        found: detections with boxes (N, 4), scores (N,) and labels (N,), arrays or tensors.
        image_id: id of the image.
        category_ids: category id of each label.
        rles: RLE of each mask; None without masks.
    """
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    records: list[dict[str, Any]] = [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
        }
        for (x0, y0, x1, y1), score, label in rows
    ]
    for record, rle in zip(records, rles or [], strict=rles is not None):
        record["segmentation"] = rle
    return records
