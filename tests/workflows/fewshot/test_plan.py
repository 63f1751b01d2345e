"""What is asked for is checked before anything is trained, and remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tldet.data.layouts import Split
from tldet.errors import DataError, TrainingError
from tldet.workflows.fewshot.plan import SETTINGS, Cell, Plan, cells, check, read_json, remember


def truth(path: Path, counts: dict[str, int]) -> Split:
    categories = [{"id": i, "name": name} for i, name in enumerate(counts, 1)]
    names = [i for i, name in enumerate(counts, 1) for _ in range(counts[name])]
    annotations = [{"id": n, "image_id": 1, "category_id": c, "bbox": [0, 0, 5, 5]} for n, c in enumerate(names, 1)]
    whole: dict[str, Any] = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]}
    path.write_text(json.dumps({**whole, "categories": categories, "annotations": annotations}))
    return Split(path, path.parent)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    train = truth(tmp_path / "train.json", {"a": 9, "b": 3, "c": 5})
    val = truth(tmp_path / "val.json", {"a": 1, "b": 1, "c": 1})
    return Plan(train, val, val, ("c",), None, 100, 0.1, (), {"model": None, "steps": 5})


def test_every_combination_once() -> None:
    found = cells(["tfa", "full"], [1, 5, 1], [0, 1])
    assert len(found) == 8
    assert found[:3] == [Cell("tfa", 1, 0), Cell("tfa", 1, 1), Cell("tfa", 5, 0)]
    assert found[-1].name == "full_5shot_seed1"
    with pytest.raises(TrainingError, match="--seeds must be at least 0, not -1"):
        cells(["tfa"], [1], [0, -1])


def test_what_the_data_cannot_give(plan: Plan, tmp_path: Path) -> None:
    check(plan, cells(["tfa"], [1, 3], [0]))
    assert plan.base_classes == ("a", "b")
    with pytest.raises(DataError, match=r"train\.json: 4 shots of class 'b' asked for, but it has only 3 objects"):
        check(plan, cells(["tfa"], [1, 4], [0]))
    with pytest.raises(DataError, match="has no class 'd'"):
        check(replace(plan, novel=("d",)), cells(["tfa"], [1], [0]))
    few = truth(tmp_path / "few.json", {"a": 1, "b": 1, "c": 0})
    with pytest.raises(DataError, match=r"few\.json: has no object of novel class 'c'"):
        check(replace(plan, measured=few), cells(["tfa"], [1], [0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"novel": ("b",)}, r"another novel: \['c'\], not \['b'\]"),
        ({"shot_steps": 7}, "another shot_steps: 100, not 7"),
        ({"base": Path("x.pt")}, "another base: None, not x.pt"),
    ],
)
def test_a_folder_holds_one_experiment(plan: Plan, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    remember(plan, tmp_path)
    remember(plan, tmp_path)
    with pytest.raises(TrainingError, match=said):
        remember(replace(plan, **change), tmp_path)
    (tmp_path / SETTINGS).write_text('{"trai')
    assert read_json(tmp_path / SETTINGS) is None
    remember(plan, tmp_path)
    assert read_json(tmp_path / SETTINGS) is not None
