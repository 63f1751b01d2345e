"""File names in two shared arrays behave like a list of texts."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tldet.data.index import TextTable


@given(st.lists(st.text(st.characters(exclude_categories=[]), max_size=5), max_size=5))
def test_it_behaves_like_a_list(texts: list[str]) -> None:
    table = TextTable.of(texts)
    assert len(table) == len(texts)
    assert list(table) == texts
    assert table == texts
    assert table[1:] == texts[1:]
    assert pickle.loads(pickle.dumps(table)) == texts
    for position in range(-len(texts), len(texts)):
        assert table[position] == texts[position]
    for position in (len(texts), -len(texts) - 1):
        with pytest.raises(IndexError):
            table[position]


def test_it_differs_from_other_texts() -> None:
    assert TextTable.of(["a", "bc"]) != ["ab", "c"]
    assert TextTable.of(["a"]) != ["a", "a"]
    assert TextTable.of(["a"]) != 3
