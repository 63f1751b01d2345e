"""From COCO JSON to checked columns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from msgspec import UNSET

from tldet import rle
from tldet.evaluation import checks, reading
from tldet.evaluation.columns import Bools, Floats, GroundTruth, Results, Size, Type
from tldet.evaluation.reading import Source, name_of, read
from tldet.labelled import labelled_table

logger = logging.getLogger(__name__)


def load_ground_truth(source: Source, type: Type) -> GroundTruth:
    """Read and check annotations, from a file or from a dict of the same layout.

    Raises:
        DataError: one line that names the file and the annotation, picture or category at fault.
    """
    if type not in ("bbox", "segm"):
        raise ValueError(f"type must be bbox or segm, not {type!r}")
    name = name_of(source, "the ground truth")
    data: Any = read(source, reading.MaskDataset if type == "segm" else reading.Dataset, name)
    for noun, records in (("image", data.images), ("category", data.categories), ("annotation", data.annotations)):
        checks.unique_ids(name, noun, [record.id for record in records])
    images = sorted(data.images, key=lambda image: image.id)
    categories = sorted(data.categories, key=lambda category: category.id)
    truth = GroundTruth(
        name=name,
        type=type,
        image_ids=[int(image.id) for image in images],
        sizes=[(int(image.height or 0), int(image.width or 0)) for image in images],
        category_ids=[int(category.id) for category in categories],
        class_names=_class_names(categories),
        images=np.zeros(0, np.int64),
        categories=np.zeros(0, np.int64),
        boxes=np.zeros((0, 4)),
        areas=np.zeros(0),
        crowd=np.zeros(0, bool),
        segmentations=None,
    )
    return _with_annotations(replace(truth, labelled=_labelled(truth, images)), data.annotations)


def _labelled(truth: GroundTruth, images: Sequence[reading.Image]) -> Bools | None:
    """(I, K) bool, the classes each picture was labelled for; None where all were."""
    stated = [image.labelled_category_ids for image in images]
    if all(ids is None for ids in stated):
        return None
    table = labelled_table(stated, truth.category_rank(), lambda row: f"{truth.name}: image id {truth.image_ids[row]}")
    if table is not None:
        some, then = int((~table.all(1)).sum()), "what is found or annotated of the others there is not judged"
        logger.info("%s: %d of %d pictures are not labelled for every class; %s", truth.name, some, len(images), then)
    return table


def _with_annotations(truth: GroundTruth, records: Sequence[Any]) -> GroundTruth:
    def who(row: int) -> str:
        return f"{truth.name}: annotation id {records[row].id}"

    images = checks.image_ranks([record.image_id for record in records], truth.image_rank(), who)
    categories = checks.category_ranks([record.category_id for record in records], truth.category_rank(), who)
    found = [record.segmentation for record in records] if truth.type == "segm" else None
    sizes = [truth.sizes[rank] for rank in images]
    if found is not None:
        checks.segmentations(found, sizes, who)
    raw_boxes = [record.bbox for record in records]
    if found is not None and None in raw_boxes:
        raw_boxes = _filled(raw_boxes, found, sizes)
    boxes = checks.boxes(raw_boxes, who)
    areas = _areas(truth.name, records, boxes, found, sizes)
    checks.finite(areas, "area", who)
    _say_missing(truth.name, "iscrowd", sum(record.iscrowd is None for record in records), "taken as 0")
    crowd = np.array([bool(record.iscrowd) for record in records], dtype=bool)
    return replace(
        truth, images=images, categories=categories, boxes=boxes, areas=areas, crowd=crowd, segmentations=found
    )


def _areas(
    name: str, records: Sequence[Any], boxes: Floats, found: Sequence[Any] | None, sizes: Sequence[Size]
) -> Floats:
    """(A,) pixels as annotated; where that is missing, of the mask when masks are scored, else of the box."""
    areas = np.array([0.0 if record.area is None else record.area for record in records], dtype=np.float64)
    rows = [row for row, record in enumerate(records) if record.area is None]
    if rows and found is not None:
        areas[rows] = rle.areas_and_boxes([rle.to_rle(found[row], sizes[row]) for row in rows])[0]
    elif rows:
        areas[rows] = boxes[rows, 2] * boxes[rows, 3]
    _say_missing(name, "area", len(rows), "taken from the " + ("box" if found is None else "mask"))
    return areas


def _say_missing(name: str, key: str, count: int, instead: str) -> None:
    if count:
        logger.warning("%s: %d annotations have no %s; %s", name, count, key, instead)


def _filled(boxes: Sequence[Any], found: Sequence[Any], sizes: Sequence[Size]) -> list[Any]:
    """``boxes`` with the bounds of the mask in place of each None."""
    rows = [row for row, box in enumerate(boxes) if box is None]
    bounds = rle.areas_and_boxes([rle.to_rle(found[row], sizes[row]) for row in rows])[1]
    filled = list(boxes)
    for row, box in zip(rows, bounds.tolist(), strict=True):
        filled[row] = box
    return filled


def load_results(source: Source, truth: GroundTruth) -> Results:
    """Read and check COCO results, in the order of the file.

    As in pycocotools, the area of a detection is its box's, also when masks are scored; it is its mask's where records
    have no box.

    Raises:
        DataError: one line that names the file and the detection at fault.
    """
    name = name_of(source, "the detections")
    masked = truth.type == "segm"
    records: list[Any] = read(source, list[reading.MaskDetection] if masked else list[reading.Detection], name)
    boxless = any(record.bbox is UNSET for record in records)
    if boxless and not masked:  # masks scored as boxes: their bounds
        records = read(source, list[reading.MaskDetection], name)

    def who(row: int) -> str:
        return f"{name}: detection {row} (counted from 0, image_id {records[row].image_id})"

    images = checks.image_ranks([record.image_id for record in records], truth.image_rank(), who)
    categories = checks.category_ranks([record.category_id for record in records], truth.category_rank(), who)
    raw_boxes = [None if record.bbox is UNSET else record.bbox for record in records]
    scores = np.array([record.score for record in records], dtype=np.float64)
    checks.finite(scores, "score", who)
    if boxless and not masked and any(not record.segmentation for record in records):
        checks.boxes(raw_boxes, who)
    rles = None
    if boxless or masked:
        sizes = [truth.sizes[rank] for rank in images]
        checks.segmentations([record.segmentation for record in records], sizes, who)
        rles = [rle.to_rle(record.segmentation, size) for record, size in zip(records, sizes, strict=True)]
    return _measured(Results(images, categories, np.zeros((0, 4)), scores, scores, rles), raw_boxes, who, masked)


def _measured(results: Results, raw_boxes: Sequence[Any], who: checks.Who, masked: bool) -> Results:
    """``results`` with boxes and areas."""
    if results.segmentations is not None and None in raw_boxes:
        areas, bounds = rle.areas_and_boxes(results.segmentations)
        pairs = zip(raw_boxes, bounds.tolist(), strict=True)
        boxes = checks.boxes([bound if box is None else box for box, bound in pairs], who)
    else:
        boxes = checks.boxes(raw_boxes, who)
        areas = boxes[:, 2] * boxes[:, 3]
    return replace(results, boxes=boxes, areas=areas, segmentations=results.segmentations if masked else None)


def _class_names(categories: Sequence[reading.Category]) -> list[str]:
    """Names for a table; categories of one name are told apart by their ids."""
    ids = [int(category.id) for category in categories]
    names = [category.name or str(key) for category, key in zip(categories, ids, strict=True)]
    count = Counter(names)
    return [f"{name} (id {key})" if count[name] > 1 else name for name, key in zip(names, ids, strict=True)]
