"""Confusion matrix of a detector, with background."""

from __future__ import annotations

import numpy as np

from tldet.evaluation.columns import Ints
from tldet.evaluation.errors.assign import Assigned
from tldet.evaluation.errors.match import greedy


def confusion_matrix(assigned: Assigned, score: float) -> Ints:
    """Count the objects of each class by the class of their detection.

    Detections with a score of at least ``score`` are matched with objects of any class, best score first, each with the
    unmatched object of the largest IoU, if this IoU reaches the threshold of ``assigned``. hotcoco uses the same rule;
    supervision matches pairs of the same class first, then by IoU.

    Args:
        assigned: the detections; crowd regions and detections in them do not count.
        score: score threshold.

    Returns:
        (K + 1, K + 1): rows are the classes of objects, columns the classes of detections; the last row counts
        detections without an object, the last column objects without a detection.
    """
    truth, results = assigned.truth, assigned.results
    classes = len(truth.category_ids)
    kept = assigned.counted & (results.scores >= score)
    pairs = assigned.pairs
    near = pairs.take(
        kept[pairs.detections] & ~truth.crowd[pairs.objects] & (pairs.ious >= min(assigned.iou, 1 - 1e-10))
    )
    order = np.lexsort((near.objects, -near.ious, near.detections))
    objects, detections = greedy(near.take(order), len(truth.images), len(results))
    predicted = np.append(results.categories, classes)[objects]  # -1 is the last, background
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    plain = ~truth.crowd
    np.add.at(matrix, (truth.categories[plain], predicted[plain]), 1)
    alone = results.categories[kept & (detections < 0)]
    matrix[classes, :classes] += np.bincount(alone, minlength=classes)
    return matrix


def confusions(matrix: Ints, most: int) -> list[tuple[int, int, int]]:
    """Return the most frequent confusions: class of the object, class of the detection, and count."""
    between = matrix[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    order = np.argsort(-between, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, between.shape)
    counts = between[rows, columns].tolist()
    return [(r, c, n) for r, c, n in zip(rows.tolist(), columns.tolist(), counts, strict=True) if n]
