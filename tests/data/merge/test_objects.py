"""Objects annotated twice are kept once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tldet.data.merge.objects import find_duplicates

BOX, NEAR, FAR = [10.0, 10.0, 40.0, 20.0], [10.0, 10.0, 40.0, 21.0], [10.0, 10.0, 40.0, 22.3]
Object = tuple[int, int, int, list[float], bool]


def duplicates(objects: list[Object]) -> list[tuple[int, int]]:
    images, entries, groups, boxes, has_segmentation = zip(*objects, strict=True)
    arrays: list[Any] = [np.array(values, np.int64) for values in (images, entries, groups)]
    return find_duplicates(*arrays, np.array(boxes, np.float64), np.array(has_segmentation, np.bool_))


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([(0, 0, 0, BOX, False), (0, 1, 0, BOX, False)], [(1, 0)]),
        ([(0, 0, 0, BOX, False), (0, 1, 0, NEAR, False)], [(1, 0)]),  # IoU 20 / 21
        ([(0, 0, 0, BOX, False), (0, 1, 0, FAR, False)], []),  # IoU 20 / 22.3 < 0.9
        ([(0, 0, 0, BOX, False), (0, 1, 2, BOX, False)], []),  # another class
        ([(0, 0, 0, BOX, False), (1, 1, 0, BOX, False)], []),  # another image
        ([(0, 0, 0, BOX, False), (0, 0, 0, BOX, False)], []),  # one input's own
        ([(0, 0, 0, BOX, False), (0, 1, 0, BOX, True)], [(0, 1)]),  # the one with a segmentation stays
        ([(0, 0, 0, BOX, True), (0, 1, 0, BOX, True)], [(1, 0)]),
        ([(0, 0, 0, BOX, False), (0, 1, 0, NEAR, False), (0, 1, 0, BOX, False)], [(2, 0)]),  # one twin, the best
        ([(0, 0, 0, BOX, False), (0, 1, 0, BOX, False), (0, 2, 0, BOX, False)], [(1, 0), (2, 0)]),
        ([(0, 0, 0, BOX, False), (0, 1, 0, FAR, False), (0, 2, 0, FAR, False)], [(2, 1)]),
    ],
)
def test_pairs(objects: list[Object], expected: list[tuple[int, int]]) -> None:
    assert duplicates(objects) == expected


def test_none_at_all() -> None:
    nothing: Any = np.zeros(0, np.int64)
    assert find_duplicates(nothing, nothing, nothing, np.zeros((0, 4)), np.zeros(0, np.bool_)) == []


def test_order_of_the_objects_does_not_matter() -> None:
    random = np.random.default_rng(0)
    boxes = np.repeat(random.uniform(0, 90, (40, 4)) + 5, 2, axis=0)
    keys = np.stack([np.repeat(random.integers(0, 5, 40), 2), np.tile([0, 1], 40), np.repeat(np.arange(40) % 3, 2)])
    assert len(find_duplicates(*keys, boxes, np.zeros(80, np.bool_))) == 40
    order = random.permutation(80)
    shuffled = find_duplicates(*keys[:, order], boxes[order], np.zeros(80, np.bool_))
    assert {(int(order[a]), int(order[b])) for a, b in shuffled} == {(2 * n + 1, 2 * n) for n in range(40)}
