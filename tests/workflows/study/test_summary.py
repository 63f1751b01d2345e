"""Results put together by hand-made numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.data.images import read_image
from tldet.workflows.study.report import PLOT_NAME, RESULTS_NAME, add_curve, make_study_report, write_study
from tldet.workflows.study.summary import compare_variants, groups_of, resolution, uneven

from .conftest import pretend

Results = list[dict[str, Any]]
AP = {"scratch": (0.30, 0.31, 0.32), "finetuned": (0.56, 0.57, 0.58), "frozen": (0.50, 0.60, 0.57)}


@pytest.fixture
def results(make_job: Any) -> Results:
    return [
        pretend(make_job(variant, seed, fraction), ap=values[seed] * fraction**0.1)
        for fraction in (1.0, 0.5)
        for seed in (2, 0, 1)
        for variant, values in AP.items()
    ]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Thirteen images; on twelve of them an object, one of these a crowd."""
    one = {"category_id": 1, "bbox": [0, 0, 9, 9], "area": 81}
    boxes = [{**one, "id": n, "image_id": n, "iscrowd": int(n == 3)} for n in range(12)]
    content = {"images": [{"id": n, "width": 20, "height": 20} for n in range(13)], "annotations": boxes}
    path = tmp_path / "val.json"
    path.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cell"}]}))
    return path


def test_cells(results: Results) -> None:
    groups = groups_of(results, 70)
    assert [(group.variant, group.fraction) for group in groups] == [(variant, f) for variant in AP for f in (0.5, 1.0)]
    whole = groups[1]
    assert (whole.values(), whole.images) == ([0.30, 0.31, 0.32], 200)
    assert whole.over_seeds.mean == pytest.approx(0.31)
    assert whole.over_seeds.high == pytest.approx(0.31 + 4.3026527 * 0.01 / np.sqrt(3))
    assert whole.samples().shape == (3, 200)


def test_every_variant_is_compared_with_the_fine_tuned_one(results: Results) -> None:
    compared = compare_variants(groups_of(results, 70))
    assert [(one.variant, one.reference, one.fraction) for one in compared] == [
        (variant, "finetuned", f) for variant in ("scratch", "frozen") for f in (0.5, 1.0)
    ]
    assert "100 % of the images: scratch - finetuned: -0.260 AP" in compared[1].text
    assert compared[1].text.endswith("finetuned is better")
    assert "not significant" in compared[3].text
    assert [one.found.significant for one in compared] == [True, True, False, False]


def test_only_seeds_that_both_have_are_compared(results: Results) -> None:
    less = [r for r in results if r["variant"] == "finetuned" or r["seed"] != 1]
    assert compare_variants(groups_of(less, 70))[0].found.seeds.count == 2
    apart = [r for r in results if (r["variant"] == "finetuned") == (r["seed"] == 1)]
    assert compare_variants(groups_of(apart, 70)) == []


def test_without_a_fine_tuned_variant_the_first_is_compared_with(results: Results) -> None:
    others = [r for r in results if r["variant"] != "finetuned"]
    assert {one.reference for one in compare_variants(groups_of(others, 70))} == {"scratch"}


def test_significance_over_images(results: Results) -> None:
    lines = resolution(groups_of(results, 70), compare_variants(groups_of(results, 70)), 72, 945)
    assert lines[0].startswith("validation: 72 images, 945 objects; 95 % interval over images of the AP of a run: +/- ")
    assert float(lines[0].split("+/- ")[1]) == pytest.approx(1.96 * 0.01, rel=0.2)
    assert lines[2].startswith("4 comparisons")
    assert len(resolution(groups_of(results, 70)[:1], [], 72, 945)) == 1


def test_a_busy_machine_is_named(make_job: Any) -> None:
    quiet = [pretend(make_job("a", seed), seconds=60 + 5 * seed) for seed in range(3)]
    busy = [pretend(make_job("b", seed), seconds=60 + 15 * seed) for seed in range(3)]
    (line,) = uneven(groups_of(quiet + busy, 70))
    assert "step times of b vary from 0.60 to 0.90 s" in line
    steps = [pretend(make_job("c", seed, length={"steps": 9}), seconds=60 + 15 * seed) for seed in range(3)]
    assert uneven(groups_of(steps, 70)) == [], "a number of steps does not depend on it"


def test_written_files(results: Results, truth: Path, tmp_path: Path) -> None:
    report = make_study_report(results, truth)
    write_study(report, tmp_path / "out", {"kind": "transfer"})
    found = json.loads((tmp_path / "out" / RESULTS_NAME).read_text())
    assert len(found["runs"]) == 18
    assert set(found["runs"][0]) >= {
        "variant",
        "fraction",
        "seed",
        "steps",
        "seconds",
        "numbers",
        "per_class",
        "checkpoint",
    }
    assert found["verdict"] == report.lines
    assert any("13 images, 11 objects" in line for line in report.lines)
    assert found["comparisons"][0]["significant"] is True
    assert read_image(tmp_path / "out" / PLOT_NAME).std() > 5
    assert report.table().row_count == 6


def test_a_learning_curve(make_job: Any, truth: Path, tmp_path: Path) -> None:
    fractions = (0.05, 0.1, 0.25, 0.5, 1.0)
    ap: Callable[[float, int], float] = lambda f, seed: 0.62 - 1.1 * (200 * f) ** -0.6 + 0.004 * (seed - 1)  # noqa: E731
    results = [pretend(make_job("finetuned", s, f), ap=ap(f, s)) for f in fractions for s in range(3)]
    report = make_study_report(results, truth)
    add_curve(report, [100, 800])
    write_study(report, tmp_path / "out", {})
    curve = json.loads((tmp_path / "out" / RESULTS_NAME).read_text())["curve"]
    assert curve["a"] == pytest.approx(0.62, abs=0.01)
    expected = curve["expected"]["800"]
    assert expected["low"] < 0.62 - 1.1 * 800**-0.6 < expected["high"]
    assert report.lines[1].startswith("with 100 images: predicted AP 0.")
    assert report.lines[2].startswith("with 600 more images (800 in total): predicted AP 0.")


def test_too_few_fractions_carry_no_curve(results: Results, truth: Path) -> None:
    report = make_study_report([r for r in results if r["variant"] == "finetuned"], truth)
    add_curve(report, [400])
    assert report.curve is None
    assert report.lines[0].startswith("no learning curve: 2 numbers of images are too few for a curve")


def test_too_few_images_are_never_significant(results: Results) -> None:
    """One image drawn with replacement is always the same image, which is no evidence about others."""
    groups = groups_of(results, 9)
    assert all(group.over_both.low is None for group in groups)
    assert not any(one.found.significant for one in compare_variants(groups))
    assert "unknown over images): not significant; needs more" in compare_variants(groups)[0].text
    (line,) = resolution(groups, compare_variants(groups), 12, 945)
    assert line.startswith("validation: 12 images, 9 with objects: too few for an interval")


def test_draws_without_an_object_do_not_count(results: Results) -> None:
    some = [{**one, "resampled_ap": [-1.0, *one["resampled_ap"][1:]]} for one in results]
    assert all(group.over_both.low > 0 for group in groups_of(some, 70))


def test_classes_that_are_not_annotated_are_not_counted(results: Results, truth: Path) -> None:
    """Of twelve images with an object, eleven of which are no crowds, one is annotated for another class only."""
    whole = json.loads(truth.read_text())
    whole["categories"].append({"id": 2, "name": "nucleus"})
    for labeled, count in (([1], 11), ([2], 10), ([], 10)):
        whole["images"][5]["labeled_category_ids"] = labeled
        truth.write_text(json.dumps(whole))
        report = make_study_report(results, truth)
        assert {group.evaluated for group in report.groups} == {count}
        assert f"validation: 13 images, {count} objects; 95 % interval" in "\n".join(report.lines)
