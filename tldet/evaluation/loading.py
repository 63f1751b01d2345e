"""Reading of COCO annotations and results into checked columns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET

from tldet.coco import checks, detection_checks
from tldet.coco.checks import note, require_coco_boxes
from tldet.coco.partial_labels import annotated_for_some, labeled_table
from tldet.coco.reader import Objects, read_coco
from tldet.coco.records import Category, CocoSource, name_of, read_list
from tldet.coco.results import Detection, MaskDetection
from tldet.coco.segmentations import drop_degenerate, parse_segmentation
from tldet.errors import DataError
from tldet.evaluation.columns import Bools, GroundTruth, Results, Type
from tldet.evaluation.matching import match_categories, match_images
from tldet.structures import rle
from tldet.text import counted

_logger = logging.getLogger(__name__)


class _Flags(msgspec.Struct):
    """Flags of an annotation that COCO metrics do not use."""

    ignore: int | bool | None = None
    difficult: int | bool | None = None


class _Flagged(msgspec.Struct):
    annotations: list[_Flags] = msgspec.field(default_factory=list)


def load_ground_truth(source: CocoSource, type: Type, *, quiet: bool = False, flags: bool = False) -> GroundTruth:
    """Read and check annotations, from a file or from a dict of the same layout.

    Args:
        source: the annotations.
        type: "bbox" or "segm".
        quiet: do not log changes made on reading.
        flags: also read ``ignore`` and ``difficult`` of the annotations.

    Raises:
        DataError: the annotations are invalid; the message names the file and the annotation, image or category.
    """
    if type not in ("bbox", "segm"):
        raise ValueError(f"type must be bbox or segm, not {type!r}")
    name = name_of(source, "the ground truth")
    coco = read_coco(source, name, segmentations=type == "segm")
    for line in () if quiet else coco.notes:
        _logger.warning("%s: %s", name, line)
    if count := int((~coco.objects.flagged).sum()):
        _logger.warning("%s: %s without iscrowd, which is taken as 0", name, counted(count, "annotation"))
    images, categories = np.argsort([one.id for one in coco.images]), sorted(coco.categories, key=lambda one: one.id)
    ordered, objects = [coco.images[position] for position in images], coco.objects
    rank = np.empty_like(images)
    rank[images] = np.arange(len(images))
    category_ids = [category.id for category in categories]
    truth = GroundTruth(
        name=name,
        type=type,
        image_ids=[image.id for image in ordered],
        sizes=[(image.height or 0, image.width or 0) for image in ordered],
        category_ids=category_ids,
        class_names=_class_names(categories),
        images=rank[objects.positions],
        categories=np.searchsorted(category_ids, objects.category_ids),
        boxes=objects.boxes,
        areas=objects.areas,
        crowd=objects.crowd,
        segmentations=None,
        file_names=[image.file_name for image in ordered],
        unused=coco.unused.id if coco.unused else None,
        flagged=_flagged(source, name)[objects.rows] if flags else None,
    )
    stated = coco.labeled()
    truth = truth if stated is None else replace(truth, labeled=_labeled(truth, [stated[row] for row in images]))
    return _with_areas(truth if type == "bbox" else _with_masks(truth, objects))


def _flagged(source: CocoSource, name: str) -> Bools:
    """Return True for annotations with ``ignore`` or ``difficult``, in the order of the file."""
    found = read_list(source, _Flagged, name).annotations
    return np.array([bool(one.ignore or one.difficult) for one in found], np.bool_)


def _labeled(truth: GroundTruth, stated: Sequence[Sequence[int] | None]) -> Bools | None:
    """Return (I, K) bool, True for classes annotated on an image; None if all classes are annotated on all images."""
    table = labeled_table(stated, truth.category_rank(), lambda row: f"{truth.name}: image id {truth.image_ids[row]}")
    if table is not None:
        then = "detections and objects of the other classes are ignored there"
        _logger.info("%s: %s; %s", truth.name, annotated_for_some(table), then)
    return table


def _with_masks(truth: GroundTruth, objects: Objects) -> GroundTruth:
    """Add the masks; an object without a mask becomes an ignored region, its box.

    Raises:
        DataError: a segmentation is malformed, or no object has one.
    """
    found: list[Any] = []
    dropped, bare = np.zeros(len(objects.rows), np.bool_), np.zeros(len(objects.rows), np.bool_)
    for row in range(len(objects.rows)):
        outline, count = drop_degenerate(parse_segmentation(objects.segmentation_text(row)))
        dropped[row], bare[row] = count > 0, outline is None
        x, y, width, height = objects.boxes[row].tolist()
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        found.append([corners] if outline is None else outline)
    if len(bare) and bare.all():
        raise DataError(f"{truth.name}: annotation id {objects.ids[0]} has no segmentation, nor has any other")
    sizes = [truth.sizes[rank] for rank in truth.images]
    detection_checks.segmentations(found, sizes, lambda row: f"{truth.name}: annotation id {objects.ids[row]}")
    for line in (
        note(dropped, objects.ids, "segmentation", "with polygons of fewer than 3 points, which were dropped"),
        note(bare & ~truth.crowd, objects.ids, "object", f"of {len(bare):,} without a segmentation: ignored regions"),
    ):
        if line:
            _logger.warning("%s: %s", truth.name, line)
    return replace(truth, segmentations=found, crowd=truth.crowd | bare)


def _with_areas(truth: GroundTruth) -> GroundTruth:
    """Fill in missing areas: of the mask if masks are evaluated, else of the box."""
    rows, areas = np.flatnonzero(np.isnan(truth.areas)), truth.areas.copy()
    if len(rows) and truth.segmentations is not None:
        masks = [rle.to_rle(truth.segmentations[row], truth.sizes[truth.images[row]]) for row in rows.tolist()]
        areas[rows] = rle.areas_and_boxes(masks)[0]
    elif len(rows):
        areas[rows] = truth.boxes[rows, 2] * truth.boxes[rows, 3]
    if len(rows):
        instead = "box" if truth.segmentations is None else "mask"
        text = "%s: %s without a positive area, which is taken from the %s"
        _logger.warning(text, truth.name, counted(len(rows), "annotation"), instead)
    return replace(truth, areas=areas)


def load_results(source: CocoSource, truth: GroundTruth) -> Results:
    """Read and check COCO results, in the order of the file.

    As in pycocotools, the area of a detection is that of its box, also if masks are evaluated. Without a box in the
    records, it is that of the mask.

    Raises:
        DataError: a detection is invalid; the message names the file and the detection.
    """
    name = name_of(source, "the detections")
    masked = truth.type == "segm"
    records: list[Any] = read_list(source, list[MaskDetection] if masked else list[Detection], name)
    boxless = any(record.bbox is UNSET for record in records)
    if boxless and not masked:  # the boxes of the masks are evaluated
        records = read_list(source, list[MaskDetection], name)

    def named(row: int) -> str:
        return f"{name}: detection {row} (counted from 0, image_id {records[row].image_id})"

    images = match_images(name, records, truth, named)
    categories, kept = match_categories(name, records, truth, named)
    if len(kept) < len(records):
        images, records = images[kept], [records[row] for row in kept]

    def who(row: int) -> str:
        return f"{name}: detection {kept[row]} (counted from 0, image_id {records[row].image_id})"

    raw_boxes = [None if record.bbox is UNSET else record.bbox for record in records]
    scores = np.array([record.score for record in records], dtype=np.float64)
    detection_checks.finite(scores, "score", who)
    if boxless and not masked and any(not record.segmentation for record in records):
        detection_checks.boxes(raw_boxes, who)
    rles = None
    if boxless or masked:
        sizes = [truth.sizes[rank] for rank in images]
        detection_checks.segmentations([record.segmentation for record in records], sizes, who)
        rles = [rle.to_rle(record.segmentation, size) for record, size in zip(records, sizes, strict=True)]
    found = _with_boxes(Results(images, categories, np.zeros((0, 4)), scores, scores, rles), raw_boxes, who, masked)
    if not boxless:
        for line in require_coco_boxes(name, "boxes", found.boxes, np.array(truth.sizes).reshape(-1, 2)[images]):
            _logger.warning("%s: %s", name, line)
    return found


def _with_boxes(results: Results, raw_boxes: Sequence[Any], who: checks.Who, masked: bool) -> Results:
    """Add boxes and areas to ``results``."""
    if results.segmentations is not None and None in raw_boxes:
        areas, bounds = rle.areas_and_boxes(results.segmentations)
        pairs = zip(raw_boxes, bounds.tolist(), strict=True)
        boxes = detection_checks.boxes([bound if box is None else box for box, bound in pairs], who)
    else:
        boxes = detection_checks.boxes(raw_boxes, who)
        areas = boxes[:, 2] * boxes[:, 3]
    return replace(results, boxes=boxes, areas=areas, segmentations=results.segmentations if masked else None)


def _class_names(categories: Sequence[Category]) -> list[str]:
    """Return a name for each category; categories of equal names get their id appended."""
    ids = [int(category.id) for category in categories]
    names = [category.name or str(key) for category, key in zip(categories, ids, strict=True)]
    count = Counter(names)
    return [f"{name} (id {key})" if count[name] > 1 else name for name, key in zip(names, ids, strict=True)]
