"""Errors of each image at one score threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Ints, Results
from tldet.evaluation.errors.assign import assign_error_types
from tldet.evaluation.errors.curves import overall_curve
from tldet.evaluation.errors.images import image_counts, image_f1


@dataclass(frozen=True)
class PerImage:
    """Counts of each of I images at an IoU of 0.5, matched as COCO does.

    Attributes:
        threshold: lowest score of a counted detection: that of the largest F1 of all classes and images together; 0 if
            no detection matches an object.
        image_ids: ids.
        file_names: file names, "" if unknown.
        objects: (I,) objects, without ignored regions.
        detections: (I,) detections at or above the threshold, with those in ignored regions.
        true_positives: (I,) detections that match an object of their class.
        false_positives: (I,) detections that match neither an object nor an ignored region.
        misses: (I,) objects without a matching detection.
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
        results: detections; at most 100 of a class on an image are used.
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
