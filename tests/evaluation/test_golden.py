"""Both engines against numbers of pycocotools 2.0.11, to 1e-12."""

import json
from pathlib import Path
from typing import Any

import pytest

from tldet.evaluation.coco import evaluate_files
from tldet.evaluation.engines import ENGINES
from tldet.evaluation.report import METRICS, CocoResult

LONG = {"APs": "APsmall", "APm": "APmedium", "APl": "APlarge", "ARs": "ARsmall", "ARm": "ARmedium", "ARl": "ARlarge"}
PAIRS = [
    ("coco_fake100", "bbox"),
    ("coco_fake100", "segm"),
    ("coco_fake100_boxarea", "bbox"),
    ("coco_mini_detector", "bbox"),
    ("voc100_detector", "bbox"),
]


def assert_numbers(result: CocoResult, expected: dict[str, float]) -> None:
    wanted = {name: expected[LONG.get(name, name)] for name in METRICS}
    assert result.numbers() == pytest.approx(wanted, abs=1e-12, rel=0)


def assert_classes(result: CocoResult, categories: list[dict[str, Any]], expected: dict[str, dict[str, float]]) -> None:
    names = {str(category["id"]): category["name"] for category in categories}
    average = {names[key]: value["AP"] for key, value in expected.items()}
    assert result.per_class == pytest.approx(average, abs=1e-12, rel=0)
    at_half = {names[key]: value["AP50"] for key, value in expected.items()}
    assert result.per_class_ap50 == pytest.approx(at_half, abs=1e-12, rel=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("folder", "type"), PAIRS)
def test_pairs(shared: Path, folder: str, type: Any, engine: Any) -> None:
    root = shared / "data" / "eval" / folder
    expected = json.loads((root / "expected.json").read_text())["results"][type]
    gt = root / "gt.json"
    if not gt.exists():
        gt = shared / "data" / "coco_mini" / "annotations" / "instances_val2017.json"
    result = evaluate_files(gt, root / expected["detections"], type=type, engine=engine)
    assert result.detections == expected["n_detections"]
    assert_numbers(result, expected["stats"])
    assert_classes(result, json.loads(gt.read_text())["categories"], expected["per_category"])
    agnostic = evaluate_files(gt, root / expected["detections"], type=type, engine=engine, agnostic=True)
    assert_numbers(agnostic, expected["stats_class_agnostic"])


@pytest.mark.parametrize("engine", ENGINES)
def test_edge_cases(shared: Path, engine: Any) -> None:
    cases = json.loads((shared / "data" / "eval" / "edge_cases" / "cases.json").read_text())["cases"]
    by_name = {case["name"]: case for case in cases}
    assert len(by_name) == 48
    # the reference counts a hit on annotation id 0 as a miss; here annotations are renumbered
    by_name["annotation_id_zero"] |= {
        key: by_name["annotation_id_zero_renumbered"][key] for key in ("expected", "per_category")
    }
    for case in cases:
        for type, expected in case["expected"].items():
            result = evaluate_files(case["gt"], case["dt"], type=type, engine=engine)
            try:
                assert_numbers(result, expected)
                assert_classes(result, case["gt"]["categories"], case["per_category"])
            except AssertionError as error:
                raise AssertionError(f"case {case['name']}: {error}") from None
