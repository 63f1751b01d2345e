"""Division by class and group: shares are kept, groups stay whole, the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldet.data.folds import join_groups, stratify


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(8, 80), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_every_part_has_images_and_every_group_one_part(seed: int, parts: int, groups: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    shown, sizes = random.integers(0, 3, (groups, classes)), random.integers(1, 4, groups)
    part = stratify(shown, sizes, [1 / parts] * parts, seed)
    assert set(part.tolist()) == set(range(parts))
    assert part.tolist() == stratify(shown, sizes, [1 / parts] * parts, seed).tolist()


def test_shares_of_images_and_classes() -> None:
    """A class on every second, tenth and fiftieth image: each part gets its share of each to one image."""
    random = np.random.default_rng(0)
    shown = (random.random((500, 3)) < (0.5, 0.1, 0.02)).astype(int)
    part = stratify(shown, np.ones(500, int), [0.7, 0.2, 0.1], 3)
    for number, share in enumerate((0.7, 0.2, 0.1)):
        assert abs((part == number).sum() - 500 * share) <= 2
        assert (np.abs(shown[part == number].sum(0) - share * shown.sum(0)) <= 2).all()


def test_stratified_better_than_at_random() -> None:
    random = np.random.default_rng(1)
    shown = (random.random((300, 20)) < 0.03).astype(int)
    ours = stratify(shown, np.ones(300, int), [0.2] * 5, 0)
    drawn = random.permutation(300) % 5

    def spread(part: np.ndarray) -> float:
        counts = np.array([shown[part == number].sum(0) for number in range(5)])
        return float(counts.std(0).mean())

    assert spread(ours) < 0.5 * spread(drawn)


def test_seeds_differ() -> None:
    shown = np.ones((40, 1), int)
    one, two = (stratify(shown, np.ones(40, int), [0.5, 0.5], seed) for seed in (0, 1))
    assert one.tolist() != two.tolist()


@pytest.mark.parametrize(
    ("keys", "pairs", "expected"),
    [
        ([], [], [0, 1, 2, 3]),
        ([["a", "b", "a", "c"]], [], [0, 1, 0, 2]),
        ([["a", "b", "a", "c"]], [(1, 2)], [0, 0, 0, 1]),
        ([["a", "b", "c", "d"], [1, 1, 2, 2]], [(0, 3)], [0, 0, 0, 0]),
        ([], [(2, 3), (1, 2)], [0, 1, 1, 1]),
    ],
)
def test_groups(keys: list[list[object]], pairs: list[tuple[int, int]], expected: list[int]) -> None:
    assert join_groups(4, keys, pairs).tolist() == expected
