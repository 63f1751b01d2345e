"""Confidence intervals of means and differences of a few runs; pure functions of numbers.

AP varies for two reasons: randomness in training, which more seeds average out, and the choice of evaluation images,
which more seeds do not. A difference is significant only if it holds against both.
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
FEW = 10  # images with objects; a bootstrap over fewer images is not informative


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: mean of the values.
        low: lower end; None for a single value.
        high: upper end.
        count: number of values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @property
    def excludes_zero(self) -> bool:
        """True if the interval lies on one side of 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def ends(self, between: str = " to ", sign: str = "-", missing: str = "one seed") -> str:
        """Return ``0.412 to 0.438``; with signs if ``sign`` is "+"; ``missing`` if there is no interval."""
        if self.low is None or self.high is None:
            return missing
        return f"{self.low:{sign}.3f}{between}{self.high:{sign}.3f}"


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Compute Student's t-interval of the mean of independent values.

    Args:
        values: at least one; a single value has no interval.
        level: confidence level.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if count < 2:
        return Interval(mean, None, None, count)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = t_quantile((1 + level) / 2, count - 1) * spread / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def t_quantile(probability: float, freedom: int) -> float:
    """Compute the quantile of Student's t by bisection.

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
    """Compute the probability of Student's t in ``-bound..bound`` (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
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
    """Compute the percentile interval of bootstrap samples (Efron and Tibshirani 1993, chapter 13).

    Args:
        samples: (B,) bootstrap samples; NaN for a draw without ground truth. If all are NaN, there is no interval.
        mean: mean of the values.
        count: number of values.
        level: confidence level.
    """
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return Interval(mean, None, None, count)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), count)


def pigeonhole_bootstrap(samples: _Floats, random: np.random.Generator) -> _Floats:
    """Resample seeds in addition to images and return the means over seeds, (B,) (Owen 2007, pigeonhole bootstrap).

    Args:
        samples: (S, B) AP of each seed on each draw of images.
        random: generator that draws the seeds.
    """
    seeds, count = samples.shape
    drawn = random.integers(seeds, size=(seeds, count))
    return np.asarray(np.take_along_axis(samples, drawn, 0).mean(0))


@dataclass(frozen=True)
class Difference:
    """Two variants compared on the same seeds and images.

    Attributes:
        seeds: interval of the mean difference over seeds (t, paired by seed).
        images: interval of the mean difference over evaluation images (bootstrap, paired by image).
        scatter: range of AP over the seeds, the larger of the two variants.
    """

    seeds: Interval
    images: Interval
    scatter: float

    @property
    def significant(self) -> bool:
        """True if the difference is significant over seeds and over evaluation images."""
        apart = self.scatter > EQUAL and abs(self.seeds.mean) > EQUAL
        return apart and self.seeds.excludes_zero and self.images.excludes_zero

    def verdict(self, name: str, other: str) -> str:
        """Return the comparison in one line."""
        mean = f"{name} - {other}: {self.seeds.mean:+.3f} AP"
        if self.seeds.count < 2:
            return f"{mean}; one seed: significance unknown (run at least 3 seeds)"
        images = self.images.ends(sign="+", missing="unknown")
        over = f"{self.seeds.ends(sign='+')} over {self.seeds.count} seeds, {images} over images"
        if self.significant:
            better = name if self.seeds.mean > 0 else other
            return f"{mean} ({over}): {better} is better"
        if self.scatter <= EQUAL:
            return (
                f"{mean} ({over}): not significant; every seed gave the same AP, so the effect of randomness is unknown"
            )
        reasons = []
        if not self.seeds.excludes_zero:
            reasons.append("seeds" if self.seeds.count > 2 else "seeds (two are rarely enough)")
        if not self.images.excludes_zero:
            reasons.append("validation images")
        return f"{mean} ({over}): not significant; needs more {' and more '.join(reasons)}"


def difference(
    values: Sequence[float], others: Sequence[float], samples: _Floats, other_samples: _Floats
) -> Difference:
    """Compare two variants, paired by seed.

    Args:
        values: (S,) AP of one variant.
        others: (S,) AP of the other variant with the same seeds.
        samples: (S, B) AP of the first variant on each draw of images.
        other_samples: (S, B) AP of the other variant on the same draws.
    """
    apart = mean_interval([a - b for a, b in zip(values, others, strict=True)])
    drawn = (samples - other_samples).mean(0)
    scatter = max(max(values) - min(values), max(others) - min(others))
    return Difference(apart, percentile_interval(drawn, apart.mean, apart.count), scatter)
