"""Mean, deviation and interval over seeds."""

from __future__ import annotations

import json
import math

import pytest
from rich.console import Console

from tldet.workflows.fewshot.summary import FewShotReport, group_metrics, spread


@pytest.mark.parametrize(
    ("values", "mean", "deviation", "interval"),
    [
        ([0.25], 0.25, None, None),
        ([0.1, 0.3], 0.2, math.sqrt(0.02), 12.706 * 0.1),
        ([1.0, 2.0, 3.0], 2.0, 1.0, 4.303 / math.sqrt(3)),
        ([0.0, 1.0] * 20, 0.5, math.sqrt(10 / 39), 2.0227 * math.sqrt(10 / 39) / math.sqrt(40)),
    ],
)
def test_spread_by_hand(values: list[float], mean: float, deviation: float | None, interval: float | None) -> None:
    found = spread(values)
    assert found.interval.mean == pytest.approx(mean)
    assert found.deviation == (None if deviation is None else pytest.approx(deviation))
    high = found.interval.high
    assert (None if high is None else high - mean) == (None if interval is None else pytest.approx(interval, rel=1e-3))


def numbers(base: float, novel: float) -> dict[str, float]:
    return {"base_AP": base, "base_AP50": 2 * base, "novel_AP": novel, "novel_AP50": 2 * novel}


REPORT = FewShotReport(
    numbers(0.6, -1.0),
    [
        {"variant": "tfa", "shots": 1, "seed": 0, **numbers(0.5, 0.1)},
        {"variant": "tfa", "shots": 1, "seed": 4, **numbers(0.4, 0.2)},
        {"variant": "full", "shots": 1, "seed": 0, **numbers(0.2, 0.15)},
    ],
)


def test_base_and_novel_classes_are_averaged_apart() -> None:
    result = {"per_class": {"a": 0.5, "b": 0.25, "c": 0.1, "d": -1.0}, "per_class_ap50": {"a": 1.0, "b": 0.5, "c": 0.3}}
    found = group_metrics(result, ["a", "b", "d"], ["c"])
    assert found == {"base_AP": 0.375, "base_AP50": 0.75, "novel_AP": 0.1, "novel_AP50": 0.3}
    assert group_metrics(result, ["a"], ["new"])["novel_AP"] == -1.0


def test_runs_that_differ_by_their_seed_are_one_entry() -> None:
    first, second = REPORT.settings()
    assert (first["variant"], first["shots"], first["seeds"]) == ("tfa", 1, [0, 4])
    assert first["base_AP"].interval.mean == pytest.approx(0.45)
    assert first["novel_AP"].deviation == pytest.approx(math.sqrt(0.005))
    assert first["novel_AP50"].interval.mean == pytest.approx(0.3)
    assert (second["novel_AP"].interval.mean, second["novel_AP"].deviation) == (0.15, None)


def test_the_json_holds_every_run_and_the_table_every_setting() -> None:
    whole = json.loads(json.dumps(REPORT.to_dict()))
    assert [(r["variant"], r["seed"], r["novel_AP"]) for r in whole["runs"]] == [
        ("tfa", 0, 0.1),
        ("tfa", 4, 0.2),
        ("full", 0, 0.15),
    ]
    assert whole["summary"][0]["base_AP"]["interval"]["mean"] == pytest.approx(0.45)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(REPORT.table())
    lines = shown.get().splitlines()
    assert any("base" in line and "0.600" in line and line.count(" - ") == 2 for line in lines)
    assert "sd 0.071" in shown.get()
    assert any("tfa" in line and "0, 4" in line and "0.150 ± 0.635" in line for line in lines)
