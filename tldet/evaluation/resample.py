"""Bootstrap of AP over evaluation images.

Images are drawn with replacement (Efron and Tibshirani 1993, chapter 6). The draws are the same for every model, so
that models are compared on equal images. Detections are matched once; a draw only weights the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tldet.evaluation.columns import Bools, Floats, GroundTruth, Ints, Results, drop_unlabeled
from tldet.evaluation.errors.match import best_of_each, match_detections, matchable
from tldet.evaluation.errors.overlaps import overlapping_pairs

RESAMPLING_VERSION = 2  # 1 counted detections of classes not annotated on an image as false positives
_DRAWS = 200
_AT_ONCE = 2_000_000  # values held in memory at a time
RECALLS = np.linspace(0, 1, 101)  # COCO's
IOUS = np.linspace(0.5, 0.95, 10)  # COCO's


@dataclass(frozen=True)
class Matches:
    """Matched detections of one class on I images, best score first.

    Attributes:
        images: (D,) image of each detection.
        hits: (T, D) True if the detection matches an object, for each IoU threshold.
        counted: (T, D) False if the detection is ignored because it matches a crowd region.
        objects: (I,) number of objects on each image.
        scores: (D,) descending.
    """

    images: Ints
    hits: Bools
    counted: Bools
    objects: Ints
    scores: Floats

    def at(self, level: int) -> Matches:
        """Return the matches at one of the IoU thresholds only."""
        some = slice(level, level + 1)
        return replace(self, hits=self.hits[some], counted=self.counted[some])


def draws(images: int, count: int = _DRAWS) -> Ints:
    """Return how often each image is drawn, (count, images); a pure function of the arguments."""
    return np.random.default_rng([images, count]).multinomial(images, np.full(images, 1 / images), size=count)


def resampled_ap(truth: GroundTruth, results: Results, weights: Ints | None = None) -> Floats:
    """Return COCO AP (IoU 0.50 to 0.95, all sizes, 100 detections per image) on each draw of images, (B,).

    Args:
        truth: ground truth of I images.
        results: detections on these images.
        weights: (B, I) how often each image is drawn; None takes those of :func:`draws`.
    """
    weights = draws(len(truth.image_ids)) if weights is None else weights
    return mean_over_classes(np.array([class_ap(one, weights) for one in class_matches(truth, results)]))


def mean_over_classes(of_class: Floats) -> Floats:
    """Return the mean over classes with objects, (B,), of AP (K, B); -1 without objects."""
    defined = of_class >= 0
    total = np.where(defined, of_class, 0.0).sum(0)
    return np.where(defined.any(0), total / np.maximum(defined.sum(0), 1), -1.0)


def class_matches(truth: GroundTruth, results: Results) -> list[Matches]:
    """Return the matches of each class, as by the reference evaluator for objects of all sizes."""
    truth, results = drop_unlabeled(truth, results)
    results = best_of_each(results)
    near = matchable(truth, results, overlapping_pairs(truth, results), IOUS[0])
    found = [match_detections(truth, results, near, iou) for iou in IOUS]
    hits = np.stack([objects >= 0 for _, objects, _ in found])
    counted = ~np.stack([crowded for _, _, crowded in found])
    order = np.lexsort((results.images, -results.scores, results.categories))
    ends = np.searchsorted(results.categories[order], np.arange(len(truth.category_ids) + 1))
    plain = ~truth.crowd
    objects = np.zeros((len(truth.category_ids), len(truth.image_ids)), np.int64)
    np.add.at(objects, (truth.categories[plain], truth.images[plain]), 1)
    rows = [order[start:end] for start, end in pairwise(ends)]
    return [
        Matches(results.images[one], hits[:, one], counted[:, one], objects[k], results.scores[one])
        for k, one in enumerate(rows)
    ]


def class_ap(matches: Matches, weights: Ints) -> Floats:
    """Return the AP of one class on each draw, (B,), averaged over the IoU thresholds; -1 if no object was drawn.

    Args:
        matches: detections of the class on I images.
        weights: (B, I) how often each image is drawn.
    """
    objects = weights @ matches.objects
    ap = np.full(len(weights), -1.0)
    there = np.flatnonzero(objects)
    for some in np.array_split(there, 1 + len(there) * len(matches.images) // _AT_ONCE):
        ap[some] = np.mean([*_level_ap(matches, weights[some], objects[some])], 0) if len(some) else ap[some]
    return ap


def _level_ap(matches: Matches, weights: Ints, objects: Ints) -> Iterator[Floats]:
    """Yield the AP on each draw, (b,), at each IoU threshold; the curve is computed at the true positives only."""
    weight = weights[:, matches.images]  # (b, D)
    every = np.cumsum(weight, 1)
    for hits, counted in zip(matches.hits, matches.counted, strict=True):
        total = every if counted.all() else np.cumsum(weight * counted, 1)
        rows = np.flatnonzero(hits & counted)
        true = np.cumsum(weight[:, rows], 1)
        yield average_precision(true[:, None], total[:, None, rows] - true[:, None], objects)


def average_precision(true: Ints, false: Ints, objects: Ints) -> Floats:
    """Return the mean interpolated precision over COCO's 101 recalls and T IoU thresholds, (b,).

    Args:
        true: (b, T, D) true positives up to each detection, or to each true positive only.
        false: (b, T, D) false positives up to these.
        objects: (b,) number of objects.
    """
    draws, levels, count = true.shape
    if true.size == 0:
        return np.zeros(draws)
    precision = np.maximum.accumulate((true / np.maximum(true + false, 1))[..., ::-1], 2)[..., ::-1].reshape(-1, count)
    precision = np.pad(precision, ((0, 0), (0, 1)))  # precision at a recall that is not reached
    # All rows are searched at once: each row is shifted beyond the largest value of the row before.
    step = (objects.max() + 1) * np.arange(draws * levels)[:, None]
    needed = np.repeat(_needed(objects), levels, axis=0)
    found = np.searchsorted((true.reshape(-1, count) + step).ravel(), (needed + step).ravel()).reshape(needed.shape)
    reached = np.take_along_axis(precision, found - count * np.arange(draws * levels)[:, None], 1)
    return np.asarray(reached.reshape(draws, levels, -1).mean((1, 2)))


def _needed(objects: Ints) -> Ints:
    """Return the number of true positives that each recall needs, (b, 101), with the rounding of the evaluator."""
    hits, whole = np.ceil(objects[:, None] * RECALLS), objects[:, None]
    return np.asarray(hits - ((hits - 1) / whole >= RECALLS) + (hits / whole < RECALLS), np.int64)
