"""The reader of COCO JSON: one set of rules for training, validation, evaluation and merging.

Every ``image_id`` and ``category_id`` must exist; image and category ids must be unique. Missing, repeated and
non-integer annotation ids are replaced, since nothing refers to them. A missing bbox is derived from the segmentation.
Roboflow's unused supercategory entry is dropped. :attr:`Coco.notes` counts everything that was changed or left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco import checks
from tldet.coco.checks import note, require_coco_boxes
from tldet.coco.ids import NO_ID, ODD_ID, renumber_annotations
from tldet.coco.records import Annotation, Category, CocoSource, Image, read_document
from tldet.coco.segmentations import derive_boxes
from tldet.coco.variants import NO_FLAG
from tldet.errors import DataError
from tldet.structures.image import Size

MOST_CATEGORIES = 20_000  # evaluation takes 97 kB for each, a classifier thousands of weights
MISSING_COLUMN = 4  # position of the column of missing boxes in _columns


@dataclass(frozen=True)
class Objects:
    """Annotations of a file as columns, in file order.

    Attributes:
        rows: (A,) int64, position of each annotation in the file.
        ids: (A,) int64, unique.
        stated_ids: (A,) int64, the ids in the file; ``NO_ID`` or ``ODD_ID`` for an annotation without one.
        positions: (A,) int64, position of each annotation's image.
        category_ids: (A,) int64.
        boxes: (A, 4) float64 x, y, width, height in pixels.
        derived: (A,) bool, True for a box derived from the segmentation.
        crowd: (A,) bool; False for an annotation without ``iscrowd``.
        flagged: (A,) bool, True for an annotation with ``iscrowd``.
        areas: (A,) float64; NaN for an annotation without a positive area.
        lengths: (A,) int64, bytes of each segmentation's JSON text.
        text: the JSON texts of all segmentations, concatenated; empty if they were not kept.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    stated_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    derived: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    areas: NDArray[np.float64]
    lengths: NDArray[np.int64]
    text: bytes | bytearray

    def take(self, rows: NDArray[np.int64]) -> Objects:
        """Return the annotations of some rows, in the order of ``rows``."""
        text: bytes | bytearray = self.text
        if len(rows) < len(self.rows) or (np.diff(rows) < 0).any():
            ends = np.cumsum(self.lengths)[rows]
            spans = zip((ends - self.lengths[rows]).tolist(), ends.tolist(), strict=True)
            view = memoryview(text)
            text = b"".join([view[start:end] for start, end in spans])
        columns = [field.name for field in fields(self) if field.name != "text"]
        return Objects(**{name: getattr(self, name)[rows] for name in columns}, text=text)


@dataclass(frozen=True)
class Coco:
    """Contents of a COCO JSON.

    Attributes:
        images: the images.
        categories: the categories, without ``unused``.
        unused: the dropped supercategory entry, if any.
        objects: the annotations.
        notes: messages that count left out or changed records.
    """

    images: list[Image]
    categories: list[Category]
    unused: Category | None
    objects: Objects
    notes: tuple[str, ...]

    def labeled(self) -> list[list[int] | None] | None:
        """Return the ids of the categories annotated on each image (None: all); None if no image states any."""
        dropped = None if self.unused is None else self.unused.id
        stated = [image.labeled_category_ids for image in self.images]
        if all(ids is None for ids in stated):
            return None
        return [None if ids is None else [key for key in ids if key != dropped] for ids in stated]


def read_coco(source: CocoSource, name: str | None = None, *, segmentations: bool = False) -> Coco:
    """Read and check a COCO JSON.

    Args:
        source: the file, or Python values of the same layout.
        name: name of the source in messages; None takes the path.
        segmentations: keep the text of the segmentations.

    Raises:
        DataError: the file is invalid; the message names the file and the id of the annotation, image or category.
    """
    name = str(source) if name is None else name
    found, count, blocks = read_document(source, name)
    if count and not (found.images and found.categories):
        raise DataError(f"{name}: has no {'categories' if found.images else 'images'}")
    if len(found.categories) > MOST_CATEGORIES:
        raise DataError(
            f"{name}: has {len(found.categories)} categories; more than {MOST_CATEGORIES} are not supported"
        )
    checks.unique_ids(name, "image", [image.id for image in found.images])
    checks.unique_ids(name, "category", [category.id for category in found.categories])
    category_ids = [category.id for category in found.categories]
    objects, notes = _read_objects(name, blocks, found.images, category_ids, segmentations=segmentations)
    categories, unused = drop_unused(found.categories, objects.category_ids)
    if unused is not None:
        notes.append(f"category {unused.id} {unused.name!r} dropped: unused supercategory entry of a Roboflow export")
    sizes = np.array([_size(image) for image in found.images], np.int64).reshape(-1, 2)
    if count is None:
        notes.append("has no 'annotations' list; all images count as images without objects")
    notes += require_coco_boxes(name, "boxes", objects.boxes, sizes[objects.positions], objects.areas)
    return Coco(found.images, categories, unused, objects, tuple(notes))


def drop_unused(categories: Sequence[Category], used: NDArray[np.int64]) -> tuple[list[Category], Category | None]:
    """Drop Roboflow's entry for the supercategory: unused, and the supercategory of all other categories.

    Returns:
        The remaining categories, and the dropped one or None.
    """
    parents = Counter(c.supercategory for c in categories if isinstance(c.supercategory, str))
    for one in categories:
        root = one.supercategory in ("none", "", None) and one.name is not None
        children = parents[one.name or ""] - (one.supercategory == one.name) if root else 0
        if root and 0 < children == len(categories) - 1 and not (used == one.id).any():
            return [other for other in categories if other is not one], one
    return list(categories), None


def _read_objects(
    name: str,
    blocks: Iterator[list[Annotation]],
    images: Sequence[Image],
    categories: Sequence[int],
    *,
    segmentations: bool,
) -> tuple[Objects, list[str]]:
    """Collect annotations into columns, with notes on those that were changed or left out.

    Segmentations are kept if ``segmentations``.

    Raises:
        DataError: an annotation has an unknown image or category id, or no usable box.
    """
    parts, text, texts, count = [], bytearray(), dict[int, bytes](), 0
    for block in blocks:
        parts.append(_columns(name, block, count))
        for row in np.flatnonzero(parts[-1][MISSING_COLUMN]).tolist():
            texts[count + row] = bytes(block[row].segmentation)
        count += len(block)
        if segmentations:
            text += b"".join([a.segmentation for a in block])
    stated, image_ids, category_ids, boxes, missing, flags, areas, lengths = map(
        np.concatenate, zip(*parts, strict=True)
    )

    def who(row: int) -> str:
        return f"{name}: {_name(int(stated[row]), row)}"

    positions = checks.positions_of(image_ids, [image.id for image in images], "image_id", who)
    checks.positions_of(category_ids, categories, "category_id", who)
    valid = len(stated) == 0 or (stated[0] > ODD_ID and (stated[1:] > stated[:-1]).all())
    ids, notes = (stated, []) if valid else renumber_annotations(stated)
    areas = np.where(np.isfinite(areas) & (areas > 0), areas, np.nan)
    flagged = flags != NO_FLAG
    columns = (ids, stated, positions, category_ids, boxes, missing, (flags != 0) & flagged, flagged, areas, lengths)
    found = Objects(np.arange(len(ids)), *columns, text)
    if missing.any():
        found, more = _with_boxes(found, texts, images, who)
        notes += more
    checks.sound_boxes(found.boxes, lambda row: who(int(found.rows[row])))
    return found, notes


def _columns(name: str, block: list[Annotation], start: int) -> list[NDArray[Any]]:
    found: list[Any] = [a.bbox for a in block]
    try:
        boxes = np.array(found, np.float64).reshape(-1, 4)
        missing = np.zeros(len(block), np.bool_)
        uneven = len(boxes) != len(block)
    except (TypeError, ValueError):
        uneven = True
    if uneven:
        missing = np.array([not box for box in found], np.bool_)
        odd = next((a for a in block if a.bbox and len(a.bbox) != 4), None)
        if odd is not None:
            named = _name(odd.id, start + next(row for row, a in enumerate(block) if a is odd))
            raise DataError(f"{name}: {named} has bbox {odd.bbox}; it must be four numbers [x, y, width, height]")
        boxes = np.array([box or [np.nan] * 4 for box in found], np.float64).reshape(-1, 4)
    return [
        np.array([a.id for a in block], np.int64),
        np.array([a.image_id for a in block], np.int64),
        np.array([a.category_id for a in block], np.int64),
        boxes,
        missing,
        np.array([a.iscrowd for a in block], np.int64),
        np.array([a.area for a in block], np.float64),
        np.array([len(a.segmentation) for a in block], np.int64),
    ]


def _name(stated: int, row: int) -> str:
    return f"annotation {row} (counted from 0)" if stated in (NO_ID, ODD_ID) else f"annotation id {stated}"


def _with_boxes(
    found: Objects, texts: Mapping[int, bytes], images: Sequence[Image], who: checks.Who
) -> tuple[Objects, list[str]]:
    """Derive missing boxes from the segmentations; leave out annotations that have only degenerate polygons."""
    sizes = {row: _size(images[int(found.positions[row])]) for row in texts}
    derived = derive_boxes(texts, sizes, who)
    boxes, kept = found.boxes.copy(), np.ones(len(found.boxes), np.bool_)
    for row, box in derived.items():
        kept[row] = box is not None
        boxes[row] = 0 if box is None else box
    notes = [
        note(found.derived & kept, found.ids, "missing box", "derived from the segmentation", "missing boxes"),
        note(~kept, found.ids, "annotation", "with neither a bbox nor a polygon of 3 or more points left out"),
    ]
    return replace(found, boxes=boxes).take(np.flatnonzero(kept)), [line for line in notes if line]


def _size(image: Image) -> Size:
    return image.height or 0, image.width or 0
