"""Overlaps of the detections and the objects of each image, of boxes or masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Ints, Results
from tldet.structures import rle

_AT_ONCE = 2_000_000  # pairs held in memory at a time


@dataclass(frozen=True)
class Pairs:
    """P pairs of an overlapping detection and object, which may have different classes.

    Attributes:
        detections: (P,) rows of the detections, ascending.
        objects: (P,) rows of the objects.
        ious: (P,) IoU above 0; for a crowd region, the fraction of the detection that it covers.
    """

    detections: Ints
    objects: Ints
    ious: Floats

    def take(self, chosen: Any) -> Pairs:
        """Return some of the pairs, by rows or a bool mask."""
        return Pairs(self.detections[chosen], self.objects[chosen], self.ious[chosen])


def overlapping_pairs(truth: GroundTruth, results: Results) -> Pairs:
    """Return all pairs of an overlapping detection and object in the same image."""
    order = np.argsort(truth.images, kind="stable")
    starts = np.searchsorted(truth.images[order], np.arange(len(truth.image_ids) + 1))
    find = _box_pairs if truth.segmentations is None else _mask_pairs
    parts = list(find(truth, results, order, starts))
    detections, objects, ious = (
        np.concatenate([np.zeros(0, kind), *(part[column] for part in parts)])
        for column, kind in enumerate((np.int64, np.int64, np.float64))
    )
    sorted_rows = np.argsort(detections, kind="stable")
    return Pairs(detections, objects, ious).take(sorted_rows)


def largest(pairs: Pairs) -> Pairs:
    """Return the pair with the largest IoU of each detection, the first one of ties."""
    order = np.lexsort((pairs.objects, -pairs.ious, pairs.detections))
    ordered = pairs.take(order)
    return ordered.take(np.flatnonzero(np.diff(ordered.detections, prepend=-1)))


def _box_pairs(truth: GroundTruth, results: Results, order: Ints, starts: Ints) -> Iterator[tuple[Ints, Ints, Floats]]:
    counts = (starts[1:] - starts[:-1])[results.images]
    for some in np.array_split(np.arange(len(results)), 1 + int(counts.sum()) // _AT_ONCE):
        number = counts[some]
        detections = np.repeat(some, number)
        within = np.arange(len(detections)) - np.repeat(np.cumsum(number) - number, number)
        objects = order[np.repeat(starts[results.images[some]], number) + within]
        ious = box_iou(results.boxes[detections], truth.boxes[objects], truth.crowd[objects])
        kept = ious > 0
        yield detections[kept], objects[kept], ious[kept]


def box_iou(boxes: Floats, others: Floats, crowd: Any) -> Floats:
    """Compute the IoU of each pair of xywh boxes, (P, 4) and (P, 4).

    Args:
        boxes: boxes of detections.
        others: boxes of objects.
        crowd: (P,) bool; True to divide by the area of the detection instead of the union.

    Returns:
        (P,) in 0..1.
    """
    corner = np.maximum(boxes[:, :2], others[:, :2])
    sides = np.clip(np.minimum(boxes[:, :2] + boxes[:, 2:], others[:, :2] + others[:, 2:]) - corner, 0, None)
    shared, area = sides[:, 0] * sides[:, 1], boxes[:, 2] * boxes[:, 3]
    whole = np.where(crowd, area, area + others[:, 2] * others[:, 3] - shared)
    return np.asarray(np.divide(shared, whole, out=np.zeros(len(shared)), where=whole > 0))


def _mask_pairs(truth: GroundTruth, results: Results, order: Ints, starts: Ints) -> Iterator[tuple[Ints, Ints, Floats]]:
    from pycocotools import mask as coco_mask

    masks: Any = results.segmentations or []
    rows = np.argsort(results.images, kind="stable")
    ends = np.searchsorted(results.images[rows], np.arange(len(truth.image_ids) + 1))
    for image, size in enumerate(truth.sizes):
        found, there = rows[ends[image] : ends[image + 1]], order[starts[image] : starts[image + 1]]
        if not len(found) or not len(there):
            continue
        outlines: Any = truth.segmentations
        objects = [rle.to_rle(outlines[row], size) for row in there]
        ious = coco_mask.iou([masks[row] for row in found], objects, truth.crowd[there].astype(np.uint8).tolist())
        first, second = np.nonzero(ious)
        yield found[first], there[second], ious[first, second]
