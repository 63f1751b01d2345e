"""Images with the most errors."""

from __future__ import annotations

import numpy as np

from tldet.evaluation.columns import Bools, Floats, Ints
from tldet.evaluation.errors.assign import FALSE, Assigned


def unfound(assigned: Assigned, score: float) -> Bools:
    """Return True for objects without a matching detection at or above a score, (A,)."""
    scores = np.append(assigned.results.scores, -1.0)[assigned.found]
    return np.asarray((scores < score) & ~assigned.truth.crowd)


def image_errors(assigned: Assigned, score: float) -> Floats:
    """Return the weight of the errors of each image, (I,).

    The weight is the sum of the scores of false positives with at least ``score``, plus the number of objects without a
    matching detection of at least ``score``.
    """
    truth, results = assigned.truth, assigned.results
    false = np.isin(assigned.kinds, FALSE) & (results.scores >= score)
    weight = np.bincount(results.images[false], results.scores[false], minlength=len(truth.image_ids))
    missed = np.bincount(truth.images[unfound(assigned, score)], minlength=len(truth.image_ids))
    return np.asarray(weight + missed, np.float64)


def image_counts(assigned: Assigned, score: float) -> tuple[Ints, Ints, Ints]:
    """Return true positives, false positives and missed objects of each image at a score threshold, (I,) each."""
    results, count = assigned.results, len(assigned.truth.image_ids)
    above = results.scores >= score
    hits = np.bincount(results.images[assigned.hits & above], minlength=count)
    false = np.bincount(results.images[np.isin(assigned.kinds, FALSE) & above], minlength=count)
    return hits, false, np.bincount(assigned.truth.images[unfound(assigned, score)], minlength=count)


def image_f1(assigned: Assigned, score: float) -> Floats:
    """Return the F1 of each image at a score threshold, (I,); 1 for an image without objects and detections."""
    hits, false, missed = image_counts(assigned, score)
    total = 2 * hits + false + missed
    return np.asarray(np.divide(2 * hits, total, out=np.ones(len(total)), where=total > 0))


def worst_images(assigned: Assigned, score: float, most: int) -> Ints:
    """Return the images with the largest weight of errors, largest first; images without errors are left out."""
    weight = image_errors(assigned, score)
    order = np.argsort(-weight, kind="stable")[:most]
    return np.asarray(order[weight[order] > 0])
