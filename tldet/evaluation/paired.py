"""Comparison of two detectors on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tldet.evaluation.columns import Floats, Ints
from tldet.evaluation.resample import Matches, class_ap, mean_over_classes
from tldet.evaluation.statistics import EQUAL, Interval, percentile_interval

SWAPS = 200  # random swaps; the smallest p is 1 / 201
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Paired:
    """Difference of AP of two detectors, the second minus the first.

    Attributes:
        overall: difference of the mean over classes, with its bootstrap interval over images.
        classes: difference of each class; None without objects.
        p: p-value of the difference: probability of one at least as large if the detectors are interchangeable.
    """

    overall: Interval
    classes: list[Interval | None]
    p: float

    @property
    def significant(self) -> bool:
        """True if the difference is significant (p of at most 0.05)."""
        return self.p <= SIGNIFICANT

    def verdict(self, name: str, other: str) -> str:
        """Return the comparison of ``other`` with ``name`` in one line."""
        ends = self.overall.ends(sign="+", missing="no interval")
        numbers = f"{other} - {name}: {self.overall.mean:+.3f} AP ({ends}; p = {self.p:.3f})"
        if not self.significant:
            return f"{numbers}: not significant on these images"
        return f"{numbers}: {other if self.overall.mean > 0 else name} is better"


def compare_matches(
    first: Sequence[Matches],
    second: Sequence[Matches],
    samples: tuple[Floats, Floats],
    per_class: tuple[Floats, Floats],
) -> Paired:
    """Compare two detectors, paired by image.

    Args:
        first: matches of each class of one detector on I images.
        second: matches of the other detector on the same images.
        samples: AP of each class on each bootstrap draw, (K, B) each, on the same draws.
        per_class: AP of each class, (K,) each; -1 without objects.
    """
    count = len(first[0].objects) if first else 0
    drawn = _difference(mean_over_classes(samples[0]), mean_over_classes(samples[1]))
    whole = [float(mean_over_classes(one[:, None])[0]) for one in per_class]
    overall = percentile_interval(drawn, whole[1] - whole[0], count)
    classes: list[Interval | None] = []
    for k, (before, after) in enumerate(zip(*per_class, strict=True)):
        images = int((first[k].objects > 0).sum())
        own = _difference(samples[0][k], samples[1][k])
        classes.append(None if before < 0 else percentile_interval(own, float(after - before), images))
    return Paired(overall, classes, swap_test(first, second))


def swap_test(first: Sequence[Matches], second: Sequence[Matches], swaps: int = SWAPS) -> float:
    """Return the p-value of a randomization test (Fisher 1935): the detectors are swapped at random on each image.

    Args:
        first: matches of each class of one detector on I images.
        second: matches of the other detector on the same images.
        swaps: number of random assignments.
    """
    images = len(first[0].objects) if first else 0
    random = np.random.default_rng([images, swaps])
    kept = np.concatenate([np.ones((1, images), np.int64), random.integers(0, 2, (swaps, images))])
    joined = [_joined(*pair) for pair in zip(first, second, strict=True)]
    one, other = (_ap(joined, np.concatenate(parts, 1)) for parts in ((kept, 1 - kept), (1 - kept, kept)))
    apart = np.abs(one - other)
    return float((1 + (apart[1:] >= apart[0] - EQUAL).sum()) / (swaps + 1))


def _ap(matches: Sequence[Matches], weights: Ints) -> Floats:
    return mean_over_classes(np.array([class_ap(one, weights) for one in matches]).reshape(-1, len(weights)))


def _joined(first: Matches, second: Matches) -> Matches:
    """Concatenate the matches of both detectors; images of the second one are numbered from I on."""
    images = np.concatenate([first.images, second.images + len(first.objects)])
    scores = np.concatenate([first.scores, second.scores])
    order = np.lexsort((np.concatenate([first.images, second.images]), -scores))
    hits, counted = (
        np.concatenate([getattr(first, name), getattr(second, name)], 1)[:, order] for name in ("hits", "counted")
    )
    objects = np.concatenate([first.objects, second.objects])
    return Matches(images[order], hits, counted, objects, scores[order])


def _difference(first: Floats, second: Floats) -> Floats:
    return np.where((first < 0) | (second < 0), np.nan, second - first)
