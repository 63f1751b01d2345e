"""Paired comparison: detectors that are swapped at random do not differ, and better ones are found."""

import numpy as np
import pytest

from tests.evaluation.errors.made import grid_truth, noisy
from tldet.evaluation.columns import Results, join_results
from tldet.evaluation.paired import Paired, compare_matches, swap_test
from tldet.evaluation.resample import class_ap, class_matches, draws

TRUTH = grid_truth(24)


def compared(first: Results, second: Results) -> Paired:
    matches = [class_matches(TRUTH, one) for one in (first, second)]
    weights, once = draws(24), np.ones((1, 24), np.int64)
    samples = [np.array([class_ap(one, weights) for one in side]) for side in matches]
    ap = [np.array([class_ap(one, once)[0] for one in side]) for side in matches]
    return compare_matches(*matches, (samples[0], samples[1]), (ap[0], ap[1]))


def swapped(first: Results, second: Results, seed: int) -> tuple[Results, Results]:
    """Return two detectors that have, on each image, the detections of either one."""
    mine = np.random.default_rng(seed).integers(0, 2, 24).astype(bool)

    def mixed(own: Results, other: Results) -> Results:
        rows = np.flatnonzero(mine[own.images]), np.flatnonzero(~mine[other.images])
        return join_results("bbox", [own.take(rows[0]), other.take(rows[1])])

    return mixed(first, second), mixed(second, first)


def test_a_better_detector_is_found() -> None:
    found = compared(noisy(TRUTH, 1, 0.10), noisy(TRUTH, 2, 0.02))
    assert found.significant
    assert found.overall.low is not None
    assert found.overall.low > 0.1
    assert "fine is better" in found.verdict("loose", "fine")
    assert all(one is not None and one.mean > 0 for one in found.classes)


def test_the_same_detections_do_not_differ() -> None:
    same = noisy(TRUTH, 1, 0.05)
    found = compared(same, same)
    assert (found.p, found.overall.mean, found.overall.low, found.overall.high) == (1.0, 0, 0, 0)
    assert "not significant" in found.verdict("a", "b")


@pytest.mark.slow
def test_detectors_swapped_at_random_differ_in_few_draws() -> None:
    first, second = noisy(TRUTH, 1, 0.10), noisy(TRUTH, 2, 0.02)
    pairs = (swapped(first, second, seed) for seed in range(100))
    p = [swap_test(*(class_matches(TRUTH, one) for one in pair)) for pair in pairs]
    assert sum(one <= 0.05 for one in p) <= 10
