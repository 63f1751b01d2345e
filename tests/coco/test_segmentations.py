"""Segmentations that need a closer look before training."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tldet.coco import segmentations


def odd(given: list[Any]) -> list[int]:
    texts = [one.encode() if isinstance(one, str) else json.dumps(one).encode() for one in given]
    spans = np.cumsum([0, *map(len, texts)])
    return list(segmentations.odd_rows(np.frombuffer(b"".join(texts), np.uint8), spans))


USUAL: list[Any] = [
    [[1, 2, 3, 4, 5, 6]],
    "[[1234.5,1234.56789012345,0.123456789,10,9999,9999.99999]]",
    "[[ -3.25 , 4, 5.123456,  6, 7, 8 ]]",
    None,
    [],
]
UNUSUAL: list[Any] = [
    "[[1,2,3,4,5,12345]]",
    "[[1,2,3,4,5,-123456789.5]]",
    "[[12345.6,2,3,4,5,6]]",
    "[[1,2,3,4,5,1e9]]",
    "[[1,2,3,4,5,1.5E+30]]",
    [[1.5, 2.25] * 2000],
    {"size": [3, 4], "counts": [12]},
    [[1, 2, 3]],
    [[1, 2, 3, 4, 5, None]],
    ["a"],
]


def test_polygons_of_usual_numbers_are_passed_over() -> None:
    assert odd(USUAL * 3) == []


@pytest.mark.parametrize("segmentation", UNUSUAL, ids=lambda one: str(one)[:30])
def test_the_others_are_found(segmentation: Any) -> None:
    for before in range(len(USUAL) + 1):
        assert odd([*USUAL[:before], segmentation, *USUAL[before:]]) == [before]


def test_short_texts() -> None:
    assert odd(["[]", "", "null"]) == []
    assert odd([""]) == []


@pytest.mark.parametrize("text", ["[" * 2000 + "]" * 2000, f"[[1, 2, 3, 4, 5, {'9' * 5000}]]", "[[1, 2"])
def test_text_that_cannot_be_parsed_is_no_mask(text: str) -> None:
    assert segmentations.parse_segmentation(text.encode()) == text
    assert segmentations.drop_degenerate(text) == (text, 0)


QUADRILATERAL = [[[1, 2], [3, 2], [3, 4], [1, 4]]]  # points as pairs: malformed, but no polygon of two points


@pytest.mark.parametrize("nested", [QUADRILATERAL, [["a", "b"]], [[1, 2, 3, 4, 5, 6], [[1, 2], [3, 4]]]])
def test_only_polygons_of_numbers_are_dropped(nested: Any) -> None:
    assert segmentations.drop_degenerate(nested) == (nested, 0), "rejected by problem_with, not left out as degenerate"
    assert segmentations.drop_degenerate([[1, 2, 3, 4]]) == (None, 1)
    assert segmentations.drop_degenerate([[1, 2, 3, 4.5], [1, 2, 3, 4, 5, 6]]) == ([[1, 2, 3, 4, 5, 6]], 1)
