"""Numbers that stand in two places agree, and tables name what exists."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
KINDS = ("inference, bf16", "inference, fp32", "training step, bf16")
MODELS = ("Faster R-CNN", "RetinaNet", "FCOS", "Mask R-CNN")


def section(text: str, title: str) -> str:
    return text[text.index(f"## {title}\n") :].split("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text by their first cell."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"\d+(?:\.\d+)?", text)]


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_in_the_readme_contain_all_timed_ratios(kind: str) -> None:
    claimed = next(cells for name, cells in rows(section(README, "Results")).items() if name.startswith(kind))
    timed = rows(section(BENCHMARKS, "Ratios of all runs"))[kind]
    assert len(claimed) == len(timed) == len(MODELS)
    for model, claim, values in zip(MODELS, claimed, timed, strict=True):
        assert bool(claim) == bool(values), model
        if claim:
            low, high = numbers(claim)
            assert low <= min(numbers(values)) <= max(numbers(values)) <= high, model


@pytest.mark.parametrize(("title", "kind"), [("Inference", KINDS[0]), ("Inference", KINDS[1]), ("Training", KINDS[2])])
def test_all_runs_contain_the_detailed_tables(title: str, kind: str) -> None:
    precision = kind.rpartition(", ")[2]
    all_runs = dict(zip(MODELS, rows(section(BENCHMARKS, "Ratios of all runs"))[kind], strict=True))
    detailed = {name: cells for name, cells in rows(section(BENCHMARKS, title)).items() if f", {precision}" in name}
    assert len(detailed) >= 3
    for name, cells in detailed.items():
        assert numbers(cells[2])[0] in numbers(all_runs[name.partition(",")[0]])


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_memory_in_the_readme_is_that_of_the_benchmarks(precision: str) -> None:
    detailed = {
        name: cells for name, cells in rows(section(BENCHMARKS, "Inference")).items() if f", {precision}" in name
    }
    less = [round(100 * (1 - mine / other)) for mine, other in (numbers(cells[4]) for cells in detailed.values())]
    assert re.search(rf"{min(less)} to {max(less)} % less (?:memory )?in {precision}", README)


def test_speed_of_evaluation() -> None:
    low, high = numbers(rows(section(BENCHMARKS, "Evaluation"))["evaluation"][2])[1:]
    claim = f"{low:g} to {high:g} times as fast"
    evaluation = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert claim in " ".join(README.split())
    assert claim in " ".join(evaluation.split())


def test_results_in_the_readme_are_those_of_the_results_page() -> None:
    claimed = rows(section(README, "Results"))
    models = {name: cells for name, cells in claimed.items() if name.startswith("`")}
    assert len(models) >= 6
    found = rows(section(RESULTS, "Blood cells in 255 steps"))
    assert {name: found[name] for name in models} == models


def test_other_pages_quote_the_results_page() -> None:
    text = (ROOT / "docs" / "transfer_learning.md").read_text(encoding="utf-8")
    quoted = re.search(r"AP in 255 steps \(medians ([\d.]+) and ([\d.]+),", text)
    assert quoted
    found = rows(section(RESULTS, "Blood cells in 255 steps"))
    medians = [numbers(found[name][0])[0] for name in ("`faster_rcnn_lite0`", "`faster_rcnn_lite0 --scratch`")]
    assert [float(one) for one in quoted.groups()] == medians


def test_the_table_of_packages_lists_existing_packages() -> None:
    listed = {name.strip("`") for name in rows(section(README, "Code structure")) if name.startswith("`")}
    packages = {f"tldet/{path.parent.name}" for path in (ROOT / "tldet").glob("*/__init__.py")}
    assert listed == {*packages, "benchmarks"}


def test_the_readme_lists_every_recipe() -> None:
    recipes = {path.stem for path in (ROOT / "configs" / "recipes").glob("*.py")}
    listed = {name for line in README.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line)}
    assert recipes - listed == set()
