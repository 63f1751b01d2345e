"""Intervals for means and differences of a few runs, and what they can decide; pure functions of numbers.

Runs of different seeds vary for two reasons: chance in training, which more seeds average out, and the choice of
images that are measured on, which they do not. So a difference counts only where it holds against both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
LEVEL = 0.95
EQUAL = 1e-9  # AP; smaller differences are rounding errors
FEW = 10  # images with objects; drawing from fewer says nothing of other images


@dataclass(frozen=True)
class Interval:
    """A mean, and where it may lie.

    Attributes:
        mean: of the values.
        low: lower end; None where one value cannot tell.
        high: upper end.
        count: of values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def ends(self, between: str = " to ", sign: str = "-", untold: str = "one seed") -> str:
        """``0.412 to 0.438``; with ``sign`` "+" also ``+0.412``; ``untold`` where there is no interval."""
        if self.low is None or self.high is None:
            return untold
        return f"{self.low:{sign}.3f}{between}{self.high:{sign}.3f}"


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Student's t-interval of the mean of independent values.

    Args:
        values: at least one; with one there is a mean but no interval.
        level: share of such intervals that hold the true mean.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count < 2:
        return Interval(mean, None, None, count)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = t_quantile((1 + level) / 2, count - 1) * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def t_quantile(probability: float, freedom: int) -> float:
    """The quantile of Student's t, by bisection.

    Args:
        probability: above 0.5 and below 1.
        freedom: degrees of freedom, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0.5 < probability < 1 or freedom < 1:
        raise ValueError(f"t_quantile({probability}, {freedom}): need 0.5 < probability < 1 and freedom >= 1")
    low, high = 0.0, 1.0
    while t_within(high, freedom) < 2 * probability - 1:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return (low + high) / 2


def t_within(bound: float, freedom: int) -> float:
    """The probability that Student's t lies within ``-bound..bound`` (Abramowitz and Stegun 1964, 26.7.3, 26.7.4)."""
    angle = math.atan(bound / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    if freedom == 1:
        return 2 * angle / math.pi
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def percentile_interval(samples: _Floats, mean: float, count: int, level: float = LEVEL) -> Interval:
    """The percentile interval of bootstrap samples (Efron and Tibshirani 1993, chapter 13).

    Args:
        samples: (B,) of the bootstrap; NaN where a draw had nothing to measure. There is no interval where all are.
        mean: of the values themselves.
        count: of values.
        level: share of the samples inside.
    """
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return Interval(mean, None, None, count)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), count)


def both_ways(samples: _Floats, random: np.random.Generator) -> _Floats:
    """(B,) means over seeds drawn with replacement too (Owen 2007, the pigeonhole bootstrap).

    Args:
        samples: (S, B) of each seed on each draw of images.
        random: draws the seeds.
    """
    seeds, count = samples.shape
    drawn = random.integers(seeds, size=(seeds, count))
    return np.asarray(np.take_along_axis(samples, drawn, 0).mean(0))


@dataclass(frozen=True)
class Difference:
    """Two variants compared on the same seeds and images.

    Attributes:
        seeds: interval of the mean difference over seeds (t, paired by seed).
        images: interval of the same mean over other images to measure on (bootstrap, paired by image).
        scatter: range of AP over the seeds, the larger of the two variants.
    """

    seeds: Interval
    images: Interval
    scatter: float

    @property
    def decided(self) -> bool:
        """Whether the difference holds against chance in training and against the choice of images."""
        apart = self.scatter > EQUAL and abs(self.seeds.mean) > EQUAL
        return apart and self.seeds.excludes_zero and self.images.excludes_zero

    def verdict(self, name: str, other: str) -> str:
        """The comparison in a line."""
        mean = f"{name} - {other}: {self.seeds.mean:+.3f} AP"
        if self.seeds.count < 2:
            return f"{mean}; one seed: cannot tell (run at least 3 seeds)"
        images = self.images.ends(sign="+", untold="unknown")
        over = f"{self.seeds.ends(sign='+')} over {self.seeds.count} seeds, {images} over images"
        if self.decided:
            better = name if self.seeds.mean > 0 else other
            return f"{mean} ({over}): {better} is better"
        if self.scatter <= EQUAL:
            return (
                f"{mean} ({over}): not significant; every seed gave the same AP, so nothing shows the effect of chance"
            )
        reasons = []
        if not self.seeds.excludes_zero:
            reasons.append("seeds" if self.seeds.count > 2 else "seeds (two are too few for nearly anything)")
        if not self.images.excludes_zero:
            reasons.append("validation images")
        return f"{mean} ({over}): cannot tell; needs more {' and more '.join(reasons)}"


def difference(
    values: Sequence[float], others: Sequence[float], samples: _Floats, other_samples: _Floats
) -> Difference:
    """Compare two variants, run by run of the same seed.

    Args:
        values: (S,) of one variant.
        others: (S,) of the other, the same seeds in the same order.
        samples: (S, B) of the first variant on each draw of images.
        other_samples: (S, B) of the other, on the same draws.
    """
    apart = mean_interval([a - b for a, b in zip(values, others, strict=True)])
    drawn = (samples - other_samples).mean(0)
    scatter = max(max(values) - min(values), max(others) - min(others))
    return Difference(apart, percentile_interval(drawn, apart.mean, apart.count), scatter)
