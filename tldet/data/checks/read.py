"""Reading of annotations for checks: usable records, and findings about the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.document import TWICE
from tldet.coco.ids import NO_ID, ODD_ID
from tldet.coco.partial_labels import LABELED
from tldet.coco.reader import Coco, read_coco
from tldet.coco.records import read_json_text
from tldet.coco.segmentations import drop_degenerate
from tldet.coco.text import parse
from tldet.data.checks.findings import CODES, Finding, Repair
from tldet.data.checks.headers import read_header
from tldet.data.checks.records import Records
from tldet.data.checks.schema import salvage
from tldet.data.formats.records import Dataset, ImageRecord, Shape, bounds
from tldet.errors import DataError
from tldet.structures import rle
from tldet.structures.image import Size
from tldet.system.inputs import is_file


def read_json(path: Path, split: str, values: Any = None) -> tuple[Records | None, list[Finding]]:
    """Read a COCO JSON for checks.

    Args:
        path: the file.
        split: its split; empty if unknown.
        values: the parsed content, if it is not that of the file.

    Returns:
        The usable records, or None if there are none, and findings about the others.
    """
    try:
        coco = read_coco(path if values is None else values, str(path), segmentations=True)
    except DataError as error:
        problem = str(error).removeprefix(f"{path}: ")
    else:
        return _records(coco, path, split), [*_notes(coco, path), *_unknown_labeled(coco, path)]
    try:
        values = parse(read_json_text(path), str(path)) if values is None else values
    except DataError as error:
        return None, [_error("file-unreadable", path, str(error).removeprefix(f"{path}: "))]
    return _salvaged(values, path, split, problem)


def _salvaged(values: Any, path: Path, split: str, problem: str) -> tuple[Records | None, list[Finding]]:
    found = salvage(values, str(path))
    if not found.findings or TWICE in problem:  # parsing keeps the last of two lists
        found.findings.append(_error("record-invalid", path, problem))
    if not found.records["images"] or not found.records["categories"]:
        return None, [*found.findings, *_nothing(found.records, path)]
    try:
        coco = read_coco(found.records, str(path), segmentations=True)
    except DataError as error:
        text = str(error).removeprefix(f"{path}: ")
        return None, [*found.findings, _error("record-invalid", path, text)]
    images, annotations, categories = (found.rows[one] for one in ("images", "annotations", "categories"))
    records = _records(coco, path, split)
    records = replace(
        records,
        rows=np.array(annotations, np.int64)[records.rows],
        image_rows=np.array(images, np.int64),
    )
    notes = [_moved(one, annotations, categories) for one in _notes(coco, path)]
    return records, [*found.findings, *notes]


def _moved(finding: Finding, annotations: Sequence[int], categories: Sequence[int]) -> Finding:
    """Return a finding whose repairs refer to positions in the whole file."""
    tables = {"annotations": annotations, "categories": categories}
    moved = [one._replace(row=tables[one.section][one.row]) for one in finding.repairs]
    return replace(finding, repairs=tuple(moved))


def _nothing(records: dict[str, list[Any]], path: Path) -> list[Finding]:
    codes = {"images": "no-images", "categories": "no-categories"}
    return [_error(code, path, CODES[code][1]) for section, code in codes.items() if not records[section]]


def _error(code: str, path: Path, message: str) -> Finding:
    return Finding(code, CODES[code][0], str(path), message)


def _records(coco: Coco, path: Path, split: str) -> Records:
    categories = sorted(coco.categories, key=lambda one: one.id)
    ids = [one.id for one in categories]
    objects = coco.objects
    return Records(
        split,
        path,
        np.array([image.id for image in coco.images], np.int64),
        [image.file_name or "" for image in coco.images],
        np.array([(image.height or 0, image.width or 0) for image in coco.images], np.int64).reshape(-1, 2),
        [one.name or "" for one in categories],
        ids,
        objects.positions,
        np.searchsorted(ids, objects.category_ids).astype(np.int64),
        objects.boxes,
        objects.crowd,
        objects.ids,
        objects.areas,
        [objects.segmentation_text(row) for row in range(len(objects.rows))],
        objects.rows,
        np.arange(len(coco.images)),
    )


def _notes(coco: Coco, path: Path) -> list[Finding]:
    """Return findings about changes on reading."""
    objects, found = coco.objects, list[Finding]()
    missing = np.isin(objects.stated_ids, (NO_ID, ODD_ID))
    repeated = (objects.ids != objects.stated_ids) & ~missing

    def add(code: str, rows: NDArray[np.bool_], text: str, fix: str) -> None:
        positions = np.flatnonzero(rows)
        if not len(positions):
            return
        key = int(objects.ids[positions[0]])
        changes = [(int(objects.rows[position]), int(objects.ids[position])) for position in positions.tolist()]
        repairs = tuple(Repair("annotations", row, {"id": new}) for row, new in changes if new)
        if code == "box-derived":
            boxes = objects.boxes[positions].tolist()
            repairs = tuple(
                Repair("annotations", row, {"bbox": box}) for (row, _), box in zip(changes, boxes, strict=True)
            )
        values: dict[str, Any] = {"annotation": key, "fix": fix, "others": len(positions) - 1, "repairs": repairs}
        found.append(Finding(code, CODES[code][0], str(path), text, **values))

    add("annotation-id-repeated", repeated, "same id as an earlier annotation", "renumbered on reading")
    add("annotation-id-missing", missing, "id is missing or not an integer", "numbered on reading")
    zero = objects.stated_ids == 0
    add("annotation-id-zero", zero, "id 0, which pycocotools counts as unmatched", "renumbered for evaluation")
    add("box-derived", objects.derived, "no bbox", "derived from the mask")
    if coco.unused is not None:
        text = f"category id {coco.unused.id} {coco.unused.name!r} is an unused supercategory, as in Roboflow exports"
        found.append(Finding("category-placeholder", "info", str(path), text, fix="dropped on reading"))
    return found


def _unknown_labeled(coco: Coco, path: Path) -> list[Finding]:
    known = {one.id for one in (*coco.categories, *([coco.unused] if coco.unused else []))}
    return [
        replace(
            _error("labeled-unknown", path, f"{LABELED} contains unknown category {unknown[0]}"), image=image.file_name
        )
        for image in coco.images
        if (unknown := [key for key in image.labeled_category_ids or () if key not in known])
    ]


def read_other_format(dataset: Dataset) -> tuple[list[Records], list[Finding]]:
    """Return the records of each split of a dataset in another format, and findings about changes on reading."""
    notes = [Finding("record-changed", CODES["record-changed"][0], str(dataset.root), line) for line in dataset.notes()]
    parts = dataset.splits()
    return [_foreign(dataset, split or "", images) for split, images in parts.items()], notes


def _foreign(dataset: Dataset, split: str, images: Sequence[ImageRecord]) -> Records:
    rows = [(position, image, shape) for position, image in enumerate(images) for shape in image.shapes]
    sizes = np.array([_size(image) for image in images], np.int64).reshape(-1, 2)
    boxes = np.array([_box(image, shape) for _, image, shape in rows], np.float64).reshape(-1, 4)
    label_of = {name: label for label, name in enumerate(dataset.classes)}
    labels = [label_of.setdefault(shape.label, len(label_of)) for *_, shape in rows]
    return Records(
        split,
        dataset.root,
        np.arange(1, len(images) + 1),
        [str(image.path) for image in images],
        sizes,
        list(label_of),
        [dataset.category_ids.get(name, number) for number, name in enumerate(label_of, start=1)],
        np.array([position for position, *_ in rows], np.int64),
        np.array(labels, np.int64),
        boxes,
        np.array([shape.crowd for *_, shape in rows], np.bool_),
        [shape.location for *_, shape in rows],
        np.array([np.nan if shape.area is None else shape.area for *_, shape in rows], np.float64),
        [_text(shape) for *_, shape in rows],
        folder=Path(),
        disk_names=[str(image.path) for image in images],
        sources=[image.source for image in images],
    )


def _size(image: ImageRecord) -> Size:
    """Return the annotated size of an image, or the size of its file; (0, 0) if that cannot be read."""
    if image.size is not None or not is_file(image.path):
        return image.size or (0, 0)
    try:
        header = read_header(image.path)
    except DataError:  # the check of image files reports it
        return 0, 0
    return (0, 0) if header is None else header.upright


def _box(image: ImageRecord, shape: Shape) -> list[float]:
    """Return x, y, width and height of an object; zeros if they are unknown."""
    box = shape.box
    if box is None and shape.polygons:
        box = bounds(shape.polygons)
    if box is None and shape.rle is not None and image.size is not None:
        found: list[float] = rle.areas_and_boxes([rle.to_rle(shape.rle, image.size)])[1][0].tolist()
        return found
    x0, y0, x1, y1 = box or (0.0, 0.0, 0.0, 0.0)
    return [x0, y0, x1 - x0, y1 - y0]


def _text(shape: Shape) -> bytes:
    outline: Any = shape.polygons if shape.rle is None else shape.rle
    return json.dumps(drop_degenerate(outline)[0]).encode()
