"""Annotations of one split as columns, which the checks read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.segmentations import parse_segmentation
from tldet.data.checks.findings import CODES, Corners, Finding, Repair
from tldet.data.index import AnnotationIndex


@dataclass(frozen=True)
class Records:
    """Annotations of one split.

    Attributes:
        split: ``train``, ``val``, ``test``, or empty.
        file: the annotation file.
        image_ids: (I,) int64.
        file_names: (I,) file names in the annotations.
        sizes: (I, 2) int64 (height, width) in the annotations; 0 if unknown.
        class_names: (K,) name of each label.
        category_ids: (K,) id of each label; None for a class of the model that the file does not have.
        positions: (A,) int64, index of the image of each object.
        labels: (A,) int64 in 0..K-1.
        boxes: (A, 4) float64 x, y, width, height in pixels, unclipped.
        crowd: (A,) bool.
        ids: (A,) annotation id, or element of the file.
        areas: (A,) float64 ``area`` in the annotations; NaN if missing.
        texts: (A,) JSON text of each segmentation; empty if the masks were not read.
        rows: (A,) int64, position of each annotation in the file; empty if the file cannot be repaired.
        image_rows: (I,) int64, position of each image in the file; empty if the file cannot be repaired.
        folder: folder that the names in ``disk_names`` refer to; None if the images were not found.
        disk_names: (I,) file names on disk.
        sources: (I,) annotation file of each image; empty if all images are annotated in ``file``.
    """

    split: str
    file: Path
    image_ids: NDArray[np.int64]
    file_names: Sequence[str]
    sizes: NDArray[np.int64]
    class_names: Sequence[str]
    category_ids: Sequence[int | None]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    ids: Sequence[int | str] | NDArray[np.int64]
    areas: NDArray[np.float64]
    texts: Sequence[bytes] = ()
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    image_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    folder: Path | None = None
    disk_names: Sequence[str] = ()
    sources: Sequence[Path] = ()

    @classmethod
    def of_index(cls, split: str, index: AnnotationIndex) -> Records:
        """Return the columns of an index, which contains clipped boxes and usable objects only."""
        boxes = np.asarray(index.boxes, np.float64)
        return cls(
            split,
            index.path,
            index.image_ids,
            index.file_names,
            index.sizes.astype(np.int64),
            index.class_names,
            [None if key < 0 else key for key in index.category_ids],  # a dataset to train on has no negative ids
            np.repeat(np.arange(len(index)), np.diff(index.offsets)),
            index.labels,
            np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1),
            index.crowd,
            index.annotation_ids,
            index.areas,
        )

    @property
    def object_sizes(self) -> NDArray[np.int64]:
        """(A, 2) (height, width) of the image of each object."""
        return self.sizes[self.positions]

    def rows_by_image(self) -> list[NDArray[np.int64]]:
        """Return the rows of the objects of each image, in file order."""
        order = np.argsort(self.positions, kind="stable")
        return np.split(order, np.searchsorted(self.positions[order], np.arange(1, len(self.image_ids))))

    @property
    def paths(self) -> list[Path]:
        """Image files; empty if the images were not found."""
        return [] if self.folder is None else [self.folder / name for name in self.disk_names]

    def outline(self, row: int) -> Any:
        """Return the polygons or the RLE of an object; None without a mask."""
        return parse_segmentation(self.texts[row]) if len(self.texts) else None

    def corners(self, row: int) -> Corners:
        """Return x0, y0, x1, y1 of an object."""
        x, y, width, height = self.boxes[row].tolist()
        return x, y, x + width, y + height

    def finding(self, code: str, message: str, **values: Any) -> Finding:
        """Return a finding about the whole split."""
        file, severity = values.pop("file", self.file), values.pop("severity", CODES[code][0])
        return Finding(code, severity, str(file), message, **values)

    def of_image(self, code: str, position: int, message: str, **values: Any) -> Finding:
        """Return a finding about an image."""
        file = self.sources[position] if self.sources else self.file
        return self.finding(code, message, image=self.file_names[position], file=file, **values)

    def of_object(self, code: str, row: int, message: str, **values: Any) -> Finding:
        """Return a finding about an object."""
        key = self.ids[row]
        given = {"annotation": key if isinstance(key, str) else int(key), "box": self.corners(row), **values}
        return self.of_image(code, int(self.positions[row]), message, **given)

    def change(self, row: int, values: dict[str, Any] | None) -> tuple[Repair, ...]:
        """Return the repair of an annotation; empty if the file cannot be repaired."""
        return (Repair("annotations", int(self.rows[row]), values),) if len(self.rows) else ()

    def change_image(self, position: int, values: dict[str, Any] | None) -> tuple[Repair, ...]:
        """Return the repair of an image entry; empty if the file cannot be repaired."""
        return (Repair("images", int(self.image_rows[position]), values),) if len(self.image_rows) else ()
