"""Calibration of scores: agreement of scores and the fraction of correct detections (Guo et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tldet.evaluation.columns import Bools, Floats, Ints
from tldet.evaluation.errors.assign import Assigned

BINS = 10
_CLIP = 1e-6  # scores of 0 and 1 have no logit
_RANGE = (0.05, 20.0)  # range of the temperature
_STEPS = 60  # steps of the search, which shrink the bracket to 1e-12 of its width


@dataclass(frozen=True)
class Calibration:
    """Reliability of scores in bins of equal width.

    Attributes:
        edges: (B + 1,) scores.
        counts: (B,) detections.
        confidence: (B,) mean score; NaN in an empty bin.
        accuracy: (B,) fraction of the detections that match an object; NaN in an empty bin.
    """

    edges: Floats
    counts: Ints
    confidence: Floats
    accuracy: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of the gaps, weighted by detections; NaN without detections."""
        kept = self.counts > 0
        gaps = np.abs(self.confidence - self.accuracy)[kept]
        return float(np.average(gaps, weights=self.counts[kept])) if kept.any() else float("nan")

    @property
    def mce(self) -> float:
        """Largest gap of a bin; NaN without detections."""
        gaps = np.abs(self.confidence - self.accuracy)[self.counts > 0]
        return float(gaps.max()) if len(gaps) else float("nan")


def calibration(scores: Floats, hits: Bools, bins: int = BINS) -> Calibration:
    """Compute the reliability of scores.

    Args:
        scores: (D,) 0..1.
        hits: (D,) True for detections that match an object.
        bins: number of bins; a score at an edge belongs to the bin above, 1 to the last.
    """
    rows = np.minimum((scores * bins).astype(np.int64), bins - 1)
    counts = np.bincount(rows, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(rows, scores, minlength=bins) / counts
        accuracy = np.bincount(rows, hits, minlength=bins) / counts
    return Calibration(np.linspace(0, 1, bins + 1), counts, confidence, accuracy)


def scaled(scores: Floats, temperature: float) -> Floats:
    """Divide the logits of scores by a temperature, which keeps their order."""
    return np.asarray(1 / (1 + np.exp(-_logits(scores) / temperature)))


def fit_temperature(scores: Floats, hits: Bools) -> float | None:
    """Fit the temperature that minimizes the cross-entropy, by golden-section search.

    The cross-entropy is convex in 1 / T. Returns None if all detections are correct or all are wrong.

    Args:
        scores: (D,) 0..1.
        hits: (D,) True for detections that match an object.
    """
    if not hits.any() or hits.all():
        return None
    logits = _logits(scores)
    signed = np.where(hits, -logits, logits)

    def loss(inverse: float) -> float:
        return float(np.logaddexp(0, signed * inverse).mean())

    low, high = 1 / _RANGE[1], 1 / _RANGE[0]
    share = (5**0.5 - 1) / 2
    for _ in range(_STEPS):
        first, second = high - share * (high - low), low + share * (high - low)
        low, high = (low, second) if loss(first) < loss(second) else (first, high)
    return 2 / (low + high)


def scores_and_hits(assigned: Assigned) -> tuple[Floats, Bools]:
    """Return the scores of the detections that are not ignored, and whether they match an object."""
    counted = assigned.counted
    return assigned.results.scores[counted], assigned.hits[counted]


def _logits(scores: Floats) -> Floats:
    inside = np.clip(scores, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(inside / (1 - inside)))
