"""Reader of COCO JSON, with the same rules for training, validation, evaluation and merging.

Every ``image_id`` and ``category_id`` must exist; image and category ids must be unique. Missing, repeated and
non-integer annotation ids are replaced, since nothing refers to them. A missing bbox is derived from the segmentation.
Roboflow's unused supercategory entry is dropped. :attr:`Coco.notes` counts all changed and dropped records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tldet.coco import checks
from tldet.coco.checks import require_coco_boxes
from tldet.coco.document import DocumentReader, drop_unused
from tldet.coco.ids import NO_ID, ODD_ID, renumber_annotations
from tldet.coco.records import Annotation, Category, CocoSource, Image
from tldet.coco.segmentations import derive_missing_boxes
from tldet.coco.variants import NO_FLAG
from tldet.errors import DataError
from tldet.structures.image import Size

MOST_CATEGORIES = 20_000  # each takes 97 kB in evaluation, and thousands of classifier weights
_NO_BOX = [math.nan] * 4
_MISSING_COLUMN = 4  # position of the column of missing boxes in _columns
Write = Callable[[bytes], object]


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
        spans: (F + 1,) int64, start in ``text`` of the segmentations of the F annotations in the file, and its length.
        text: the JSON texts of all segmentations in the file, concatenated; empty if they were not kept.
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
    spans: NDArray[np.int64]
    text: bytes | bytearray

    def take(self, rows: NDArray[np.int64]) -> Objects:
        """Return the annotations at ``rows``, in this order."""
        columns = [field.name for field in fields(self) if field.name not in ("spans", "text")]
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})

    def lengths(self) -> NDArray[np.int64]:
        """Return (A,) int64, bytes of each segmentation's JSON text."""
        return np.diff(self.spans)[self.rows]

    def segmentation_text(self, row: int) -> bytes:
        """Return the JSON text of the segmentation in row ``row``."""
        start, end = self.spans[self.rows[row]], self.spans[self.rows[row] + 1]
        return bytes(memoryview(self.text)[start:end])


@dataclass(frozen=True)
class Coco:
    """Contents of a COCO JSON.

    Attributes:
        images: the images.
        categories: the categories, without ``unused``.
        unused: the dropped supercategory entry, if any.
        objects: the annotations.
        notes: messages that count changed and dropped records.
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


def read_coco(
    source: CocoSource, name: str | None = None, *, segmentations: bool = False, write: Write | None = None
) -> Coco:
    """Read and check a COCO JSON.

    Args:
        source: the file, or Python values of the same layout.
        name: name of the source in messages; None takes the path.
        segmentations: keep the text of the segmentations.
        write: receives the text of the segmentations, part by part, which is then not kept.

    Raises:
        DataError: the file is invalid; the message names the file and the id of the annotation, image or category.
    """
    name = str(source) if name is None else name
    reader = DocumentReader(source, name)
    text = bytearray()
    columns = _read_columns(reader, name, write or (text.extend if segmentations else None))
    if len(columns.stated) and not (reader.images and reader.categories):
        raise DataError(f"{name}: has no {'categories' if reader.images else 'images'}")
    if len(reader.categories) > MOST_CATEGORIES:
        raise DataError(
            f"{name}: has {len(reader.categories)} categories; more than {MOST_CATEGORIES} are not supported"
        )
    checks.unique_ids(name, "image", [image.id for image in reader.images])
    checks.unique_ids(name, "category", [category.id for category in reader.categories])
    objects, notes = _make_objects(name, columns, reader)
    objects = replace(objects, text=text)
    categories, unused = drop_unused(reader.categories, objects.category_ids)
    if unused is not None:
        notes.append(f"category {unused.id} {unused.name!r} dropped: unused supercategory entry of a Roboflow export")
    sizes = np.array([_size(image) for image in reader.images], np.int64).reshape(-1, 2)
    if not reader.listed:
        notes.append("has no 'annotations' list; all images count as images without objects")
    notes += require_coco_boxes(name, "boxes", objects.boxes, sizes[objects.positions], objects.areas)
    return Coco(reader.images, categories, unused, objects, tuple(notes))


class _Columns(NamedTuple):
    """Unchanged values of the annotations in the file; see :class:`Objects`.

    ``boxless`` maps the rows of annotations without a box to the text of their segmentations.
    """

    boxless: dict[int, bytes]
    stated: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    missing: NDArray[np.bool_]
    flags: NDArray[np.int64]
    areas: NDArray[np.float64]
    lengths: NDArray[np.int64]


def _read_columns(blocks: Iterable[list[Annotation]], name: str, write: Write | None) -> _Columns:
    """Collect annotations into columns; ``write`` receives the text of the segmentations."""
    parts, boxless, count = [_columns(name, [], 0)], dict[int, bytes](), 0
    for block in blocks:
        parts.append(_columns(name, block, count))
        for row in np.flatnonzero(parts[-1][_MISSING_COLUMN]).tolist():
            boxless[count + row] = bytes(block[row].segmentation)
        count += len(block)
        if write is not None:
            write(b"".join([a.segmentation for a in block]))
    return _Columns(boxless, *map(np.concatenate, zip(*parts, strict=True)))


def _make_objects(name: str, columns: _Columns, reader: DocumentReader) -> tuple[Objects, list[str]]:
    """Check the columns; also return notes on annotations that were changed or dropped.

    Raises:
        DataError: an annotation has an unknown image or category id, or no usable box.
    """
    stated, flags, areas, missing = columns.stated, columns.flags, columns.areas, columns.missing

    def who(row: int) -> str:
        return f"{name}: {_name(int(stated[row]), row)}"

    positions = checks.positions_of(columns.image_ids, [image.id for image in reader.images], "image_id", who)
    checks.positions_of(columns.category_ids, [category.id for category in reader.categories], "category_id", who)
    valid = len(stated) == 0 or (stated[0] > ODD_ID and (stated[1:] > stated[:-1]).all())
    ids, notes = (stated, []) if valid else renumber_annotations(stated)
    found = Objects(
        rows=np.arange(len(ids)),
        ids=ids,
        stated_ids=stated,
        positions=positions,
        category_ids=columns.category_ids,
        boxes=columns.boxes,
        derived=missing,
        crowd=(flags != 0) & (flags != NO_FLAG),
        flagged=flags != NO_FLAG,
        areas=np.where(np.isfinite(areas) & (areas > 0), areas, np.nan),
        spans=np.concatenate([[0], np.cumsum(columns.lengths)]),
        text=b"",
    )
    if missing.any():
        found, more = derive_missing_boxes(found, columns.boxless, [_size(image) for image in reader.images], who)
        notes += more
    checks.sound_boxes(found.boxes, lambda row: who(int(found.rows[row])))
    return found, notes


def _columns(name: str, block: Sequence[Annotation], start: int) -> list[NDArray[Any]]:
    boxes = [a.bbox or _NO_BOX for a in block]
    if set(map(len, boxes)) - {4}:
        row = next(row for row, box in enumerate(boxes) if len(box) != 4)
        named = _name(block[row].id, start + row)
        raise DataError(f"{name}: {named} has bbox {boxes[row]}; it must be four numbers [x, y, width, height]")
    return [
        np.fromiter([a.id for a in block], np.int64),
        np.fromiter([a.image_id for a in block], np.int64),
        np.fromiter([a.category_id for a in block], np.int64),
        np.fromiter(chain.from_iterable(boxes), np.float64).reshape(-1, 4),
        np.fromiter([box is _NO_BOX for box in boxes], np.bool_),
        np.fromiter([a.iscrowd for a in block], np.int64),
        np.array([a.area for a in block], np.float64),
        np.fromiter([len(a.segmentation) for a in block], np.int64),
    ]


def _name(stated: int, row: int) -> str:
    return f"annotation {row} (counted from 0)" if stated in (NO_ID, ODD_ID) else f"annotation id {stated}"


def _size(image: Image) -> Size:
    return image.height or 0, image.width or 0
