"""Analysis of the detections on a dataset: all metrics and errors of a report."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Ints, Results
from tldet.evaluation.engines import score_results
from tldet.evaluation.errors.assign import Assigned, assign_error_types
from tldet.evaluation.errors.attributes import ByAttribute, by_aspect_ratio, by_crowding, by_size
from tldet.evaluation.errors.calibration import Calibration, calibration, fit_temperature, scaled, scores_and_hits
from tldet.evaluation.errors.confusion import confusion_matrix
from tldet.evaluation.errors.curves import Curve, class_curves, overall_curve
from tldet.evaluation.errors.tide import Tide, tide
from tldet.evaluation.report import CocoResult
from tldet.evaluation.resample import Matches, class_ap, class_matches, draws, mean_over_classes
from tldet.evaluation.statistics import Interval, percentile_interval

_DEFAULT_THRESHOLD = 0.3  # score threshold if there are no true positives, as in prediction


@dataclass(frozen=True)
class Analysis:
    """Detections on a dataset, their metrics and their errors at an IoU of 0.5.

    Attributes:
        truth: ground truth.
        results: detections.
        coco: COCO metrics.
        assigned: type of each detection, and match of each object.
        overall: precision and recall of all classes together.
        curves: precision and recall of each class.
        matches: matches of each class at all IoU thresholds.
        samples: (K, B) AP of each class on each bootstrap sample of images; -1 if a sample has no object of the class.
    """

    truth: GroundTruth
    results: Results
    coco: CocoResult
    assigned: Assigned
    overall: Curve
    curves: list[Curve]
    matches: list[Matches]
    samples: Floats

    @cached_property
    def threshold(self) -> float:
        """Score threshold with the largest F1, all classes together."""
        best = self.overall.best()
        return _DEFAULT_THRESHOLD if best is None else best[0]

    @cached_property
    def thresholds(self) -> list[float | None]:
        """Score threshold with the largest F1 of each class; None for a class without true positives."""
        return [None if best is None else best[0] for best in (one.best() for one in self.curves)]

    @cached_property
    def confusion(self) -> Ints:
        """Confusion matrix at the score threshold, (K + 1, K + 1)."""
        return confusion_matrix(self.assigned, self.threshold)

    @cached_property
    def tide(self) -> Tide:
        """AP lost to each type of error."""
        return tide(self.assigned)

    @cached_property
    def calibration(self) -> Calibration:
        """Reliability of the scores."""
        return calibration(*scores_and_hits(self.assigned))

    @cached_property
    def temperature(self) -> float | None:
        """Temperature that calibrates the scores; None if all detections are correct or all are wrong."""
        return fit_temperature(*scores_and_hits(self.assigned))

    @cached_property
    def calibrated(self) -> Calibration | None:
        """Reliability of the scores after temperature scaling."""
        scores, hits = scores_and_hits(self.assigned)
        return None if self.temperature is None else calibration(scaled(scores, self.temperature), hits)

    @cached_property
    def attributes(self) -> dict[str, ByAttribute]:
        """AP by size, aspect ratio and crowding of the objects."""
        found = (by_size(self.assigned), by_aspect_ratio(self.assigned), by_crowding(self.assigned))
        return dict(zip(("size", "aspect ratio", "crowding"), found, strict=True))

    @property
    def interval(self) -> Interval:
        """Bootstrap interval of AP over images."""
        return interval(mean_over_classes(self.samples), self.coco.AP, len(self.truth.image_ids))

    def class_interval(self, category: int) -> Interval:
        """Return the bootstrap interval of the AP of a class over images."""
        ap = list(self.coco.per_class.values())[category]
        return interval(self.samples[category], ap, int((self.matches[category].objects > 0).sum()))


def interval(samples: Floats, mean: float, count: int) -> Interval:
    """Return the percentile interval of bootstrap samples of AP, -1 where undefined."""
    return percentile_interval(np.where(samples < 0, np.nan, samples), mean, count)


def analyze(truth: GroundTruth, results: Results) -> Analysis:
    """Evaluate detections and assign their errors.

    Args:
        truth: ground truth of the images.
        results: detections on these images.
    """
    assigned = assign_error_types(truth, results)
    matches = class_matches(truth, results)
    weights = draws(len(truth.image_ids))
    return Analysis(
        truth,
        results,
        score_results(truth, results),
        assigned,
        overall_curve(assigned),
        class_curves(assigned),
        matches,
        np.array([class_ap(one, weights) for one in matches]).reshape(len(matches), len(weights)),
    )
