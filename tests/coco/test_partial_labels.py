"""The table of what images were labeled for."""

from __future__ import annotations

from typing import Any

import pytest

from tldet.coco.partial_labels import labeled_table
from tldet.errors import DataError

COLUMNS = {7: 0, 3: 1, 12: 2}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([[7], None, []], [[True, False, False], [True, True, True], [False, False, False]]),
        ([[12.0, 3, 3]], [[False, True, True]]),
        ([None, None], None),
        ([[3, 7, 12], None], None),
        ([], None),
    ],
)
def test_the_table(stated: Any, expected: Any) -> None:
    table = labeled_table(stated, COLUMNS, str)
    assert (None if table is None else table.tolist()) == expected


def test_an_unknown_id_is_named() -> None:
    with pytest.raises(DataError) as raised:
        labeled_table([None, [3, 4]], COLUMNS, lambda row: f"a.json: image {row}")
    assert str(raised.value) == (
        "a.json: image 1 has unknown category id 4 in labeled_category_ids; known ids: 7, 3, 12"
    )
    with pytest.raises(DataError, match=r"known ids: 0, 1, 2, 3, 4, 5, 6, 7, \.\.\.$"):
        labeled_table([[99]], {i: i for i in range(20)}, str)
