"""Ids stay where they can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tldet.coco.ids import renumber_repeated


@pytest.mark.parametrize(
    ("ids", "refused", "expected"),
    [
        ([], (), []),
        ([7, 3, 9], (), [7, 3, 9]),
        ([1, 2, 1, 2], (), [1, 2, 3, 4]),
        ([5, 5, 1], (), [5, 2, 1]),  # the third keeps its id: the free one is not taken from it
        ([0, -1, 4], (-1, 0), [1, 2, 4]),
        ([0, 0], (), [0, 1]),
        ([2**63 - 1, 2**63 - 1], (), [2**63 - 1, 1]),
    ],
)
def test_first_come_first_kept(ids: list[int], refused: tuple[int, ...], expected: list[int]) -> None:
    assert renumber_repeated(np.array(ids, np.int64), refused).tolist() == expected


@given(st.lists(st.integers(-3, 12), max_size=30))
def test_all_differ_and_first_holders_keep_theirs(ids: list[int]) -> None:
    changed = renumber_repeated(np.array(ids, np.int64), (-1, 0)).tolist()
    assert len(set(changed)) == len(ids)
    assert not {-1, 0} & set(changed)
    for number, old in enumerate(ids):
        if old not in ids[:number] and old not in (-1, 0):
            assert changed[number] == old
        else:
            assert changed[number] not in ids
