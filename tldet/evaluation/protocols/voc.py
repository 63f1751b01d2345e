"""Average precision of Pascal VOC since 2010 (Everingham et al. 2010; development kit, ``VOCevaldet.m``)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tldet.evaluation.columns import Bools, Floats, GroundTruth, Results, drop_unlabeled
from tldet.evaluation.errors.overlaps import largest, overlapping_pairs
from tldet.evaluation.protocols.result import ProtocolResult
from tldet.evaluation.report import mean_defined

IOU = 0.5


def evaluate_voc(truth: GroundTruth, results: Results) -> ProtocolResult:
    """Compute the AP of each class, and their mean.

    A detection is assigned to the object of its class with the largest IoU, if that is at least 0.5. It is ignored if
    the object is difficult, a true positive if no detection with a higher score is assigned to the object, and else a
    false positive. AP is the area under the precision-recall curve, with precision made monotonically decreasing.

    Args:
        truth: ground truth; crowd regions and objects with ``ignore`` or ``difficult`` are difficult.
        results: detections; all of them are evaluated.
    """
    truth, results = drop_unlabeled(truth, results)
    results = results.take(np.lexsort((-results.scores, results.categories)))
    difficult = truth.crowd if truth.flagged is None else truth.crowd | truth.flagged
    hits, counted = _matched(truth, results, difficult)
    objects = np.bincount(truth.categories[~difficult], minlength=len(truth.category_ids))
    ends = np.searchsorted(results.categories, np.arange(len(objects) + 1))
    ap = {}
    for k, name in enumerate(truth.class_names):
        rows = np.arange(ends[k], ends[k + 1])
        ap[name] = voc_average_precision(hits[rows[counted[rows]]], int(objects[k]))
    metrics = {"VOC mAP": mean_defined(np.array(list(ap.values()), np.float64))}
    settings = {"iou_threshold": IOU, "interpolation": "all points", "difficult_objects": int(difficult.sum())}
    return ProtocolResult("Pascal VOC 2010, IoU 0.5", metrics, "VOC AP", ap, settings)


def _matched(truth: GroundTruth, results: Results, difficult: Bools) -> tuple[Bools, Bools]:
    """Return the detections that are true positives, and those that are not ignored, (D,) each.

    Args:
        truth: ground truth, A objects.
        results: D detections, in order of descending score within each class.
        difficult: (A,) bool.
    """
    pairs = overlapping_pairs(replace(truth, crowd=np.zeros(len(truth.crowd), np.bool_)), results)
    own = largest(pairs.take(results.categories[pairs.detections] == truth.categories[pairs.objects]))
    near = own.take(own.ious >= IOU)
    hits, counted = np.zeros(len(results), np.bool_), np.ones(len(results), np.bool_)
    counted[near.detections[difficult[near.objects]]] = False
    claims = near.take(~difficult[near.objects])
    hits[claims.detections[np.unique(claims.objects, return_index=True)[1]]] = True
    return hits, counted


def voc_average_precision(hits: Bools, objects: int) -> float:
    """Return the area under the monotonic precision-recall curve; -1 without objects.

    Args:
        hits: (D,) True for true positives, best score first.
        objects: number of objects.
    """
    if not objects:
        return -1.0
    true = np.cumsum(hits)
    precision: Floats = np.maximum.accumulate((true / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(precision[hits].sum() / objects)  # recall rises by 1 / objects at each true positive
