"""The fitted curve recovers its parameters, its intervals have nominal coverage; none without evidence."""

from __future__ import annotations

import numpy as np
import pytest

from tldet.errors import DataError
from tldet.evaluation.power_law import fit

SIZES = [10, 20, 50, 100, 200]


def law(n: float) -> float:
    return float(0.62 - 1.1 * n**-0.6)


def test_numbers_without_noise_give_the_law_back() -> None:
    found = fit(SIZES * 2, [law(n) for n in SIZES] * 2)
    assert (found.a, found.b, found.c) == pytest.approx((0.62, 1.1, 0.6), rel=0.06)
    ahead = found.at(800)
    assert ahead.mean == pytest.approx(law(800), abs=2e-3)
    assert ahead.high is not None
    assert ahead.low is not None
    assert ahead.high - ahead.low < 5e-3


@pytest.mark.parametrize("ahead", [200, 400, 800])
def test_coverage_of_the_interval_is_nearly_nominal(ahead: int) -> None:
    held = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        values = [law(n) + random.normal(0, 0.015 * (10 / n) ** 0.3) for n in SIZES * 3]
        found = fit(SIZES * 3, values, draws=200).at(ahead)
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= law(ahead) <= found.high)
    assert 0.87 <= np.mean(held) < 1


def test_the_farther_the_less_certain() -> None:
    random = np.random.default_rng(0)
    found = fit(SIZES * 3, [law(n) + random.normal(0, 0.01) for n in SIZES * 3])
    widths = [(one.high or 0) - (one.low or 0) for one in map(found.at, (200, 400, 800))]
    assert widths[0] < widths[1] < widths[2]


def test_the_same_numbers_give_the_same_curve() -> None:
    values = [0.2, 0.31, 0.42, 0.44, 0.5]
    assert (fit(SIZES, values).samples == fit(SIZES, values).samples).all()


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.5, 0.5, 0.5], [0.5, 0.48, 0.46, 0.44, 0.4]])
def test_more_images_never_do_harm(values: list[float]) -> None:
    found = fit(SIZES, values)
    assert found.b == 0
    assert found.at(800).mean == pytest.approx(np.mean(values))


def test_no_detector_is_better_than_perfect() -> None:
    found = fit(SIZES, [0.1, 0.3, 0.55, 0.75, 0.95])
    assert found.a <= 1
    assert (found.at(800).high or 2) <= 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [([10, 20] * 3, "2 numbers of images"), ([10, 20, 40], "3 runs are too few for a curve of 3 parameters")],
)
def test_too_few_runs(sizes: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(sizes, [0.1] * len(sizes))


def test_too_far() -> None:
    with pytest.raises(DataError, match=r"801 images are more than 4 times the largest run .200.: .* at most 800"):
        fit(SIZES, [law(n) for n in SIZES]).at(801)
