"""Matching of detections with objects of their class, as in pycocotools."""

from __future__ import annotations

import numpy as np

from tldet.evaluation.columns import Bools, GroundTruth, Ints, Results
from tldet.evaluation.errors.overlaps import Pairs

_MOST = 100  # maximum number of detections per class and image, as in COCO
_LARGEST = 1 - 1e-10  # IoU threshold of pycocotools for 1


def best_of_each(results: Results, most: int = _MOST) -> Results:
    """Return the best ``most`` detections of each class and image, sorted by image, best score first."""
    order = np.lexsort((-results.scores, results.categories, results.images))
    images, categories = results.images[order], results.categories[order]
    first = np.flatnonzero(np.diff(images, prepend=-1).astype(bool) | np.diff(categories, prepend=-1).astype(bool))
    rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    rows = np.sort(order[rank < most])
    return results.take(rows[np.lexsort((-results.scores[rows], results.images[rows]))])


def matchable(truth: GroundTruth, results: Results, pairs: Pairs, iou: float) -> Pairs:
    """Return the pairs of equal class with an IoU of at least ``iou``, in matching order."""
    same = results.categories[pairs.detections] == truth.categories[pairs.objects]
    near = pairs.take(same & (pairs.ious >= min(iou, _LARGEST)))
    return near.take(np.lexsort((-near.objects, -near.ious, near.detections)))  # the later of equal objects


def match_detections(truth: GroundTruth, results: Results, pairs: Pairs, iou: float) -> tuple[Ints, Ints, Bools]:
    """Match detections with objects of their class, best score first, as pycocotools does.

    Args:
        truth: A objects.
        results: D detections, best score first on each image.
        pairs: pairs of :func:`matchable`.
        iou: IoU at or above which a detection matches an object.

    Returns:
        (A,) the detection of each object, (D,) the object of each detection, -1 without one, and (D,) True for
        detections that match a crowd region only.
    """
    near = pairs.take(pairs.ious >= min(iou, _LARGEST))
    crowd = truth.crowd[near.objects]
    found, objects = greedy(near.take(~crowd), len(truth.images), len(results))
    crowded = np.zeros(len(results), np.bool_)
    crowded[near.detections[crowd]] = True
    return found, objects, crowded & (objects < 0)


def greedy(pairs: Pairs, objects: int, detections: int) -> tuple[Ints, Ints]:
    """Match each detection, in the order of the pairs, with its first unmatched object.

    Returns:
        (A,) the detection of each object and (D,) the object of each detection; -1 without one.
    """
    found, used = [-1] * objects, [-1] * detections
    for detection, row in zip(pairs.detections.tolist(), pairs.objects.tolist(), strict=True):
        if used[detection] < 0 and found[row] < 0:
            used[detection], found[row] = row, detection
    return np.array(found, np.int64), np.array(used, np.int64)
