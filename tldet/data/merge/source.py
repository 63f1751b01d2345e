"""Datasets to merge: records as JSON text, and the fields that merging needs as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import training_fields
from tldet.coco.partial_labels import labeled_table
from tldet.coco.raw import Record, record_texts, record_values
from tldet.coco.reader import Coco, read_coco
from tldet.coco.records import read_json_text
from tldet.coco.segmentations import checked_rows
from tldet.coco.text import top_level
from tldet.data.file_names import require_images, resolve_names
from tldet.data.layouts import Split
from tldet.errors import DataError

_KNOWN = ("images", "annotations", "categories", "licenses", "info")


@dataclass(frozen=True)
class MergeSource:
    """One COCO JSON; I images and A objects in its order.

    Attributes:
        split: the JSON and its image folder.
        categories: category records.
        licenses: license records; ``license`` of an image is the id of one.
        images: (I) image records as JSON text.
        file_names: (I) file names of the images.
        image_ids: (I,) int64.
        sizes: (I, 2) int32, (height, width).
        labeled: (I) ids of the categories annotated on each image; None for all.
        objects: (A) annotation records as JSON text.
        annotation_ids: (A,) int64, unique.
        stated_ids: (A,) int64, the ids in the JSON.
        image_positions: (A,) int64, position of an object's image.
        category_ids: (A,) int64.
        boxes: (A, 4) float64, [x, y, width, height] in pixels.
        derived: (A,) bool, True for a box derived from the segmentation.
        crowd: (A,) bool.
        has_segmentation: (A,) bool, True for objects with a segmentation.
        left_out: top-level fields that are not merged.
        notes: messages that count records that were changed on reading.
    """

    split: Split
    categories: list[Record]
    licenses: list[Record]
    images: list[msgspec.Raw]
    file_names: list[str]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    labeled: list[frozenset[int] | None]
    objects: list[msgspec.Raw]
    annotation_ids: NDArray[np.int64]
    stated_ids: NDArray[np.int64]
    image_positions: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    derived: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    has_segmentation: NDArray[np.bool_]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The JSON."""
        return self.split.annotations

    @property
    def paths(self) -> list[Path]:
        """Paths of the I images."""
        return [self.split.images / name for name in self.file_names]

    def image(self, position: int) -> str:
        """Return the name of an image in messages."""
        return f"image {self.image_ids[position]} ({self.file_names[position]})"


def open_merge_source(split: Split, *, missing: bool = False) -> MergeSource:
    """Read a dataset with :func:`read_merge_source`, and check that its images exist unless ``missing`` is set."""
    source = read_merge_source(split)
    names = resolve_names(split.images, source.file_names, split.annotations)
    source = replace(source, file_names=list(names))
    if not missing:
        require_images(split.images, source.file_names, split.annotations)
    return source


def read_merge_source(split: Split) -> MergeSource:
    """Read and check a COCO JSON.

    Raises:
        DataError: the file is invalid; the message names it and the id of the annotation, image or category.
    """
    path = split.annotations
    coco = read_coco(path, segmentations=True)
    training_fields(str(path), coco.images, coco.categories)
    found, kept = coco.objects, {category.id for category in coco.categories}
    sizes = np.array([(image.height, image.width) for image in coco.images], np.int32)
    _check_segmentations(path, coco, sizes)
    texts = top_level(read_json_text(path), str(path))
    objects = record_texts(path, texts, "annotations")
    return MergeSource(
        split=split,
        categories=[one for one in record_values(path, texts, "categories") if one["id"] in kept],
        licenses=_licenses(path, texts),
        images=record_texts(path, texts, "images"),
        file_names=[str(image.file_name) for image in coco.images],
        image_ids=np.array([image.id for image in coco.images], np.int64),
        sizes=sizes,
        labeled=_labeled(path, coco),
        objects=objects if len(found.rows) == len(objects) else [objects[row] for row in found.rows.tolist()],
        annotation_ids=found.ids,
        stated_ids=found.stated_ids,
        image_positions=found.positions,
        category_ids=found.category_ids,
        boxes=found.boxes,
        derived=found.derived,
        crowd=found.crowd,
        has_segmentation=found.lengths() > len("null"),
        left_out=tuple(key for key in texts if key not in _KNOWN),
        notes=coco.notes,
    )


def _check_segmentations(path: Path, coco: Coco, sizes: NDArray[np.int32]) -> None:
    found = coco.objects
    text = np.frombuffer(found.text, np.uint8)
    for row, _, _, problem in checked_rows(text, found.spans, found.rows, sizes[found.positions]):
        if problem:
            raise DataError(f"{path}: annotation id {found.ids[row]} {problem}")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _licenses(path: Path, texts: Mapping[str, msgspec.Raw]) -> list[Record]:
    records = record_values(path, texts, "licenses")
    wrong = [record for record in records if not _is_id(record.get("id"))]
    if wrong:
        raise DataError(f"{path}: a license has no integer id: {wrong[0]}")
    return records


def _labeled(path: Path, coco: Coco) -> list[frozenset[int] | None]:
    """Return the categories annotated on each image."""
    columns = {category.id: column for column, category in enumerate(coco.categories)}
    stated = coco.labeled()
    if stated is None:
        return [None] * len(coco.images)
    labeled_table(stated, columns, lambda row: f"{path}: image {coco.images[row].id}")  # rejects unknown ids
    return [None if ids is None else frozenset(ids) for ids in stated]
