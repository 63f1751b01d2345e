"""Intervals against tables and numbers worked out by hand, and how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tldet.evaluation.statistics import (
    Interval,
    difference,
    mean_interval,
    percentile_interval,
    pigeonhole_bootstrap,
    t_quantile,
    t_within,
)

# Quantiles of Student's t as printed in tables (scipy.stats.t.ppf gives the same digits).
TABLE = [
    (0.975, 1, 12.7062047364),
    (0.975, 2, 4.3026527297),
    (0.975, 3, 3.1824463053),
    (0.975, 4, 2.7764451052),
    (0.975, 9, 2.2621571628),
    (0.975, 30, 2.0422724563),
    (0.95, 5, 2.0150483733),
    (0.995, 2, 9.9248432009),
    (0.995, 7, 3.4994832974),
]


@pytest.mark.parametrize(("probability", "freedom", "expected"), TABLE)
def test_quantiles_of_t(probability: float, freedom: int, expected: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(expected, abs=1e-9)


def test_t_by_its_closed_forms() -> None:
    assert t_within(1.0, 1) == pytest.approx(0.5)  # Cauchy
    assert t_within(math.sqrt(2), 2) == pytest.approx(math.sqrt(0.5))  # t / sqrt(2 + t^2)
    assert t_quantile(0.975, 10_000) == pytest.approx(1.95996, abs=4e-4)  # nearly normal


@pytest.mark.parametrize(("probability", "freedom"), [(0.5, 3), (1.0, 3), (0.9, 0)])
def test_no_quantile(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="t_quantile"):
        t_quantile(probability, freedom)


def test_interval_by_hand() -> None:
    """0.50, 0.52, 0.57: mean 0.53, s^2 = (9 + 1 + 16) e-4 / 2, half = 4.30265 sqrt(0.0013 / 3)."""
    found = mean_interval([0.50, 0.52, 0.57])
    assert found.mean == pytest.approx(0.53)
    assert found.low == pytest.approx(0.53 - 4.3026527 * math.sqrt(0.0013 / 3))
    assert found.high == pytest.approx(0.53 + 4.3026527 * math.sqrt(0.0013 / 3))
    assert found.count == 3
    assert mean_interval([0.4]) == Interval(0.4, None, None, 1)
    assert (found.ends(), mean_interval([0.4]).ends()) == ("0.440 to 0.620", "one seed")


def test_coverage_of_the_interval_is_nominal() -> None:
    random = np.random.default_rng(1)
    held = [_holds(mean_interval(random.normal(0.5, 0.02, 3).tolist()), 0.5) for _ in range(2000)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def _holds(interval: Interval, value: float) -> bool:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low <= value <= interval.high


def test_percentiles() -> None:
    found = percentile_interval(np.arange(101.0), 50.0, 3)
    assert (found.low, found.high) == pytest.approx((2.5, 97.5))
    assert (found.mean, found.count) == (50.0, 3)


def test_seeds_and_images_together_vary_as_both() -> None:
    """Seeds and images that add up: with many of both, the variances do."""
    random = np.random.default_rng(2)
    seeds, images = random.normal(0, 0.03, (40, 1)), random.normal(0, 0.02, (1, 4000))
    drawn = pigeonhole_bootstrap(seeds + images, random)
    assert drawn.std() == pytest.approx(math.sqrt(0.02**2 + seeds.std() ** 2 / 40), rel=0.05)
    assert pigeonhole_bootstrap(images, random).tolist() == images[0].tolist(), "one seed varies by its images alone"


def variants(gap: float, seed_noise: float, image_noise: float, seeds: int = 3) -> tuple[list[float], np.ndarray]:
    random = np.random.default_rng(5)
    values = 0.5 + gap + np.array([-1.0, 0.0, 1.0])[:seeds] * seed_noise
    return values.tolist(), values[:, None] + random.normal(0, image_noise, (seeds, 200))


@pytest.mark.parametrize(
    ("gap", "seed_noise", "image_noise", "seeds", "message"),
    [
        (0.10, 0.005, 0.005, 3, "b is better"),
        (-0.10, 0.005, 0.005, 3, "a is better"),
        (0.10, 0.100, 0.005, 3, "needs more seeds"),
        (0.10, 0.005, 0.300, 3, "needs more validation images"),
        (0.00, 0.005, 0.005, 3, "needs more seeds and more validation images"),
        (0.10, 0.005, 0.005, 1, "one seed: significance unknown"),
        (0.10, 0.050, 0.001, 2, "two are rarely enough"),
    ],
)
def test_verdicts(gap: float, seed_noise: float, image_noise: float, seeds: int, message: str) -> None:
    values, samples = variants(gap, seed_noise, image_noise, seeds)
    flat = [0.5] * seeds
    found = difference(values, flat, samples, np.full_like(samples, 0.5))
    assert message in found.verdict("b", "a")
    assert ("better" in message) == found.significant
    assert found.seeds.mean == pytest.approx(np.mean(values) - 0.5)


def test_noise_that_variants_share_cancels() -> None:
    """Pairing: seeds and images that are hard for both variants do not blur the difference."""
    random = np.random.default_rng(0)
    seeds, images = random.normal(0, 0.1, (3, 1)), random.normal(0, 0.1, (1, 200))
    base = 0.5 + seeds + images
    better = base + 0.02 + random.normal(0, 0.001, (3, 200))
    found = difference((0.52 + seeds[:, 0]).tolist(), (0.5 + seeds[:, 0]).tolist(), better, base)
    assert found.significant
    assert found.seeds.mean == pytest.approx(0.02)


def test_seeds_without_variance_are_not_significant() -> None:
    samples = np.full((3, 50), 0.5)
    for gap in (0.1, 1e-17, 0.0):
        found = difference([0.4 + gap] * 3, [0.4] * 3, samples, samples - 0.1)
        assert not found.significant
        assert "every seed gave the same AP" in found.verdict("a", "b")
    same = [0.41, 0.43, 0.45]
    assert not difference(same, same, samples, samples).significant
