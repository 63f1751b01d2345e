"""Precision, recall and F1 by score threshold, at one IoU threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tldet.evaluation.columns import Bools, Floats
from tldet.evaluation.errors.assign import Assigned
from tldet.evaluation.resample import RECALLS

_POINTS = 201  # score thresholds of a drawn curve


@dataclass(frozen=True)
class Curve:
    """Precision and recall at each score threshold.

    Attributes:
        scores: (D,) thresholds, descending: the unique scores of the detections.
        precision: (D,) 0..1.
        recall: (D,) 0..1.
        objects: number of objects.
    """

    scores: Floats
    precision: Floats
    recall: Floats
    objects: int

    @property
    def f1(self) -> Floats:
        """(D,) harmonic mean of precision and recall, 0..1."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros(len(total)), where=total > 0)

    def best(self) -> tuple[float, float, float, float] | None:
        """Return score threshold, precision, recall and F1 at the largest F1; None without true positives.

        The threshold lies halfway between the lowest score above it and the next lower one.
        """
        f1 = self.f1
        if not len(f1) or f1.max() <= 0:
            return None
        row = int(f1.argmax())
        below = self.scores[row + 1] if row + 1 < len(self.scores) else 0.0
        threshold = float(self.scores[row] + below) / 2
        return threshold, float(self.precision[row]), float(self.recall[row]), float(f1[row])

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Return precision, recall and F1 at a score threshold; precision is 1 if no detection reaches it."""
        row = int(np.searchsorted(-self.scores, -threshold, side="right")) - 1
        if row < 0:
            return 1.0, 0.0, 0.0
        return float(self.precision[row]), float(self.recall[row]), float(self.f1[row])

    def interpolated(self) -> Floats:
        """Return the largest precision at or above each of COCO's 101 recalls, (101,)."""
        highest = np.append(np.maximum.accumulate(self.precision[::-1])[::-1], 0.0)
        return np.asarray(highest[np.searchsorted(self.recall, RECALLS)])

    def sampled(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return thresholds from 0 to 1 with precision, recall and F1 at each, for plots."""
        thresholds = np.linspace(0, 1, _POINTS)
        rows = np.searchsorted(-self.scores, -thresholds, side="right") - 1
        columns = (np.append(column, end) for column, end in ((self.precision, np.nan), (self.recall, 0), (self.f1, 0)))
        precision, recall, f1 = (np.asarray(column[rows], np.float64) for column in columns)
        return thresholds, precision, recall, f1


def curve(scores: Floats, hits: Bools, objects: int) -> Curve:
    """Compute precision and recall at each score.

    Args:
        scores: (D,) in any order.
        hits: (D,) True for detections that match an object.
        objects: number of objects.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else np.zeros(0, np.int64)
    true = np.cumsum(hits[order])[last]
    return Curve(ordered[last], true / (last + 1), true / max(objects, 1), objects)


def overall_curve(assigned: Assigned) -> Curve:
    """Return the curve of all classes together."""
    counted, objects = assigned.counted, int((~assigned.truth.crowd).sum())
    return curve(assigned.results.scores[counted], assigned.hits[counted], objects)


def class_curves(assigned: Assigned) -> list[Curve]:
    """Return the curve of each class."""
    truth, results = assigned.truth, assigned.results
    objects = np.bincount(truth.categories[~truth.crowd], minlength=len(truth.category_ids)).tolist()
    rows = np.flatnonzero(assigned.counted)
    rows = rows[np.argsort(results.categories[rows], kind="stable")]
    ends = np.searchsorted(results.categories[rows], np.arange(len(objects) + 1))
    parts = [rows[ends[category] : ends[category + 1]] for category in range(len(objects))]
    return [curve(results.scores[one], assigned.hits[one], objects[k]) for k, one in enumerate(parts)]
