"""Mean, deviation and interval over seeds."""

from __future__ import annotations

import math

import pytest
from rich.console import Console

from tldet.workflows.fewshot.plan import Cell
from tldet.workflows.fewshot.summary import Spread, spread, summarise, table, to_json


def groups(base: float, novel: float) -> dict[str, dict[str, float]]:
    return {"base": {"AP": base, "AP50": 2 * base}, "novel": {"AP": novel, "AP50": 2 * novel}}


@pytest.mark.parametrize(
    ("values", "mean", "deviation", "interval"),
    [
        ([0.25], 0.25, None, None),
        ([0.1, 0.3], 0.2, math.sqrt(0.02), 12.706 * 0.1),
        ([1.0, 2.0, 3.0], 2.0, 1.0, 4.303 / math.sqrt(3)),
        ([0.0, 1.0] * 20, 0.5, math.sqrt(10 / 39), 1.96 * math.sqrt(10 / 39) / math.sqrt(40)),
    ],
)
def test_spread_by_hand(values: list[float], mean: float, deviation: float | None, interval: float | None) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(mean)
    assert found.deviation == (None if deviation is None else pytest.approx(deviation))
    assert found.interval == (None if interval is None else pytest.approx(interval))


def test_t_is_student_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    for count in range(2, 31):
        values = [float(i) for i in range(count)]
        found = spread(values)
        assert found.deviation is not None
        expected = stats.t.ppf(0.975, count - 1) * found.deviation / math.sqrt(count)
        assert found.interval == pytest.approx(expected, rel=3e-4)


RUNS = {
    Cell("tfa", 1, 0): groups(0.5, 0.1),
    Cell("tfa", 1, 4): groups(0.4, 0.2),
    Cell("full", 1, 0): groups(0.2, 0.15),
}


def test_runs_that_differ_by_their_seed_are_one_entry() -> None:
    first, second = summarise(RUNS)
    assert (first["arm"], first["shots"], first["seeds"]) == ("tfa", 1, [0, 4])
    assert first["base_AP"].mean == pytest.approx(0.45)
    assert first["novel_AP"].deviation == pytest.approx(math.sqrt(0.005))
    assert first["novel_AP50"].mean == pytest.approx(0.3)
    assert second["novel_AP"] == Spread(0.15, None, None)


def test_the_json_holds_every_run_and_the_table_every_setting() -> None:
    before = {"base": {"AP": 0.6, "AP50": 0.8}, "novel": {"AP": -1.0, "AP50": -1.0}}
    whole = to_json(before, RUNS)
    assert [(r["arm"], r["seed"], r["novel"]["AP"]) for r in whole["runs"]] == [
        ("tfa", 0, 0.1),
        ("tfa", 4, 0.2),
        ("full", 0, 0.15),
    ]
    assert whole["summary"][0]["base_AP"]["mean"] == pytest.approx(0.45)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(table(before, RUNS))
    lines = shown.get().splitlines()
    assert any("base" in line and "0.600" in line and line.count(" - ") == 2 for line in lines)
    assert "sd 0.071" in shown.get()
    assert any("tfa" in line and "0, 4" in line and "0.150 ± 0.635" in line for line in lines)
