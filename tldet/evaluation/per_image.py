"""Number of errors on each image at one score threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Ints, Results
from tldet.evaluation.errors.assign import assign_error_types
from tldet.evaluation.errors.curves import overall_curve
from tldet.evaluation.errors.images import image_counts, image_f1


@dataclass(frozen=True)
class PerImage:
    """Counts for each of I images, matched as in COCO evaluation at an IoU of 0.5.

    Attributes:
        threshold: score threshold, at or above which detections are counted: the one with the largest F1 over all
            classes and images; 0 if no detection matches an object.
        image_ids: ids.
        file_names: file names, "" if unknown.
        objects: (I,) objects, without ignored regions.
        detections: (I,) detections at or above the threshold, including those in ignored regions.
        true_positives: (I,) detections that match an object of their class.
        false_positives: (I,) detections that match neither an object nor an ignored region.
        misses: (I,) objects without a matching detection at or above the threshold.
        f1: (I,) 2 TP / (2 TP + FP + misses); 1 for an image without objects, false positives and misses.
    """

    threshold: float
    image_ids: list[int]
    file_names: list[str]
    objects: Ints
    detections: Ints
    true_positives: Ints
    false_positives: Ints
    misses: Ints
    f1: Floats


def per_image(truth: GroundTruth, results: Results) -> PerImage:
    """Count the errors of each image.

    Args:
        truth: ground truth.
        results: detections; at most 100 per class and image are used.
    """
    assigned = assign_error_types(truth, results)
    best = overall_curve(assigned).best()
    threshold, count = 0.0 if best is None else best[0], len(truth.image_ids)
    above = assigned.results.scores >= threshold
    return PerImage(
        threshold,
        list(truth.image_ids),
        [name or "" for name in truth.file_names] or [""] * count,
        np.bincount(assigned.truth.images[~assigned.truth.crowd], minlength=count),
        np.bincount(assigned.results.images[above], minlength=count),
        *image_counts(assigned, threshold),
        image_f1(assigned, threshold),
    )
