"""Label sets become one, by exact name or alias; what may be meant otherwise is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tldet.data.merge.classes import (
    differing_fields,
    labeled_classes,
    merge_classes,
    near_clashes,
    partially_merged,
    read_merge_aliases,
)
from tldet.errors import DataError


def categories(**ids: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for name, number in ids.items()]


def test_ids_change_only_if_the_inputs_disagree() -> None:
    classes = merge_classes([categories(RBC=1, WBC=2), categories(WBC=1, Platelets=2)], {})
    assert classes.names == {1: "RBC", 2: "WBC", 3: "Platelets"}
    assert classes.tables == ({1: 1, 2: 2}, {1: 2, 2: 3})


def test_case_is_no_sameness() -> None:
    classes = merge_classes([categories(RBC=1), categories(rbc=1)], {})
    assert classes.names == {1: "RBC", 2: "rbc"}


def test_an_alias_joins_and_the_first_input_s_fields_stay() -> None:
    lists = [[{"id": 0, "name": "RBC", "supercategory": "cell"}], [{"id": 5, "name": "rbc", "supercategory": "x"}]]
    classes = merge_classes(lists, {"rbc": "RBC"})
    assert classes.records == ({"id": 0, "name": "RBC", "supercategory": "cell"},)
    assert classes.tables == ({0: 0}, {5: 0})
    assert differing_fields(lists, {"rbc": "RBC"}) == ["RBC"]
    assert differing_fields(lists, {}) == []


def test_two_categories_of_one_input_can_become_one() -> None:
    classes = merge_classes([categories(car=1, van=2, dog=3)], {"car": "vehicle", "van": "vehicle"})
    assert classes.names == {1: "vehicle", 3: "dog"}
    assert classes.tables == ({1: 1, 2: 1, 3: 3},)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [(None, {1, 3}), ([1, 2], {1}), ([1], set()), ([3], {3}), ([], set()), ([1, 2, 3], {1, 3})],
)
def test_a_merged_class_is_labeled_if_all_its_sources_are(stated: list[int] | None, expected: set[int]) -> None:
    assert labeled_classes({1: 1, 2: 1, 3: 3}, stated) == expected


def test_near_names() -> None:
    names = ["RBC", "rbc", "cells", "cell", "traffic light", "traffic_light", "bus", "s", "S", "dog"]
    names += ["\u00e9", "e\u0301"]  # composed and decomposed
    assert near_clashes(names) == [
        ("RBC", "rbc"),
        ("cells", "cell"),
        ("traffic light", "traffic_light"),
        tuple(names[-2:]),
    ]


def test_a_class_made_of_several_that_another_input_has_in_part() -> None:
    lists = [categories(car=1, van=2), categories(van=1), categories(dog=1)]
    aliases = {"car": "vehicle", "van": "vehicle"}
    assert partially_merged(lists, aliases) == [("vehicle", 0, 1)]
    assert partially_merged([categories(RBC=1), categories(rbc=1)], {"rbc": "RBC"}) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"RBC": ["rbcs"]}', r"aliases.json: no input has a class 'rbcs'; did you mean 'rbc'\?"),
        ('{"A": ["rbc"], "B": ["rbc"]}', "'rbc' has two new names, 'A' and 'B'"),
        ('{"RBC": "rbc"}', r'have the form \{"new name": \["old name", ...\], ...\}: Expected `array`, got `str`'),
        ('["rbc"]', "have the form"),
        ("{", "is cut off"),
        ("", "is empty"),
    ],
)
def test_aliases_that_do_not_serve(tmp_path: Path, given: str, expected: str) -> None:
    path = tmp_path / "aliases.json"
    path.write_text(given)
    with pytest.raises(DataError, match=expected) as raised:
        read_merge_aliases(path, ["RBC", "rbc"])
    assert "\n" not in str(raised.value)


def test_aliases_read(tmp_path: Path) -> None:
    path = tmp_path / "aliases.json"
    path.write_text(json.dumps({"cell": ["RBC", "rbc"]}), encoding="utf-16")
    assert read_merge_aliases(path, ["RBC", "rbc"]) == {"RBC": "cell", "rbc": "cell"}
    with pytest.raises(DataError, match="no such file"):
        read_merge_aliases(tmp_path / "none.json", [])
