"""The benchmark "quality": its statistics on numbers by hand, its plan, and the whole path at its smallest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import machine, plots
from benchmarks.__main__ import main
from benchmarks.quality import run as run_module
from benchmarks.quality.datasets import Dataset, check_files, prepare
from benchmarks.quality.loop import loop_arguments
from benchmarks.quality.plan import Plan, chosen_variants
from benchmarks.quality.report import MEASURED, QualityReport, write_report
from benchmarks.quality.request import QualityRequest
from benchmarks.quality.run import quality
from benchmarks.quality.summary import Results, area_weights, weighted_mean
from tldet.data.layouts import Split
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.evaluation.statistics import mean_interval, t_quantile
from tldet.visualize import curves

LOOP = """
import argparse, sys
from pathlib import Path
from pycocotools.coco import COCO
p = argparse.ArgumentParser()
p.add_argument("train"), p.add_argument("val"), p.add_argument("images"), p.add_argument("--val-images")
p.add_argument("--steps", type=int), p.add_argument("--minutes", type=float), p.add_argument("--seed", type=int)
a = p.parse_args()
if a.seed and Path(sys.argv[0]).with_name("broken").exists():
    sys.exit("the loop is broken")
truth = COCO(a.val)
found = [{"image_id": one["image_id"], "category_id": one["category_id"], "bbox": one["bbox"], "score": 0.9}
         for one in truth.dataset["annotations"] if one["id"] > a.seed]
truth.loadRes(found if a.steps != 1 else [])
print(f"steps {a.steps or round(120 * a.minutes)}, AP unknown")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A torchvision loop that finds all objects, or all but the first with seed 1; none after one step."""
    path = tmp_path / "loop.py"
    path.write_text(LOOP, encoding="utf-8")
    return path


def request(out: Path, **more: Any) -> QualityRequest:
    usual: dict[str, Any] = {"datasets": ["digits"], "budgets": [1.0], "seeds": [0], "baseline": "none", "quick": True}
    return QualityRequest(out=out, **{**usual, **more})


def test_the_area_weighs_each_doubling_of_the_time_equally() -> None:
    assert area_weights([3.0]) == {3.0: 1.0}
    assert area_weights([4.0, 1.0, 2.0]) == pytest.approx({1.0: 0.25, 2.0: 0.5, 4.0: 0.25})
    weights = area_weights([1.0, 3.0, 10.0])
    assert sum(weights.values()) == pytest.approx(1)
    assert weights[1.0] == pytest.approx(math.log(3) / math.log(10) / 2)


def test_one_dataset_and_budget_has_students_interval() -> None:
    found = weighted_mean({"a": {1.0: [0.5, 0.6, 0.7]}}, {1.0: 1.0})
    usual = mean_interval([0.5, 0.6, 0.7])
    assert (found.seeds.low, found.seeds.high) == pytest.approx((usual.low, usual.high))
    assert found.datasets.low is None


def test_variances_of_datasets_are_added() -> None:
    found = weighted_mean({"a": {1.0: [0.4, 0.6]}, "b": {1.0: [0.7, 0.9]}}, {1.0: 1.0})
    assert found.seeds.mean == pytest.approx(0.65)
    half = t_quantile(0.975, 2) * math.sqrt(2 * 0.02 / 2) / 2  # equal variances: 1 + 1 degrees of freedom
    assert found.seeds.high == pytest.approx(0.65 + half)
    usual = mean_interval([0.5, 0.8])
    assert (found.datasets.low, found.datasets.high) == pytest.approx((usual.low, usual.high))


def test_a_budget_with_one_seed_takes_the_variance_of_the_others() -> None:
    group = {1.0: [0.4, 0.6], 3.0: [0.5, 0.7], 10.0: [0.8]}
    found = weighted_mean({"a": group}, {10.0: 1.0}).seeds
    assert found.mean == pytest.approx(0.8)
    assert found.high == pytest.approx(0.8 + t_quantile(0.975, 2) * math.sqrt(0.02))
    assert weighted_mean({"a": {10.0: [0.8]}}, {10.0: 1.0}).seeds.low is None
    same = weighted_mean({"a": {1.0: [0.5, 0.5]}}, {1.0: 1.0}).seeds
    assert (same.low, same.high) == (0.5, 0.5)


def runs(values: dict[tuple[str, str, float, int], float]) -> list[dict[str, Any]]:
    keys = ("variant", "dataset", "minutes", "seed")
    return [{**dict(zip(keys, key, strict=True)), "numbers": {"AP": ap}, "steps": 5} for key, ap in values.items()]


def grid(gain: float = 0.1) -> dict[tuple[str, str, float, int], float]:
    """AP of two variants on two datasets; the second variant gains the same on all."""
    return {
        (variant, dataset, minutes, seed): 0.3 + 0.1 * number + 0.02 * seed + (minutes > 1) * 0.2 + more
        for variant, more in (("torchvision", 0.0), ("tldet", gain))
        for number, dataset in enumerate(("x", "y"))
        for minutes, seeds in ((1.0, (0, 1)), (10.0, (0,)))
        for seed in seeds
    }


def test_differences_are_paired() -> None:
    found = Results.of(runs(grid()), ["torchvision", "tldet"])
    assert [name for name, _ in found.rows()] == ["1 min", "10 min", "area"]
    for _, weights in found.rows():
        apart = found.difference("tldet", weights)
        assert apart is not None
        assert (apart.seeds.mean, apart.seeds.low, apart.seeds.high) == pytest.approx((0.1, 0.1, 0.1))
        assert apart.datasets.excludes_zero
    mean = found.mean("torchvision", area_weights(found.budgets))
    assert mean is not None
    assert mean.values == pytest.approx({"x": (0.31 + 0.5) / 2, "y": (0.41 + 0.6) / 2})


def test_an_unfinished_dataset_is_left_out_of_the_means() -> None:
    values = grid()
    del values["tldet", "y", 10.0, 0]
    found = Results.of(runs(values), ["torchvision", "tldet"])
    assert [found.complete(weights) for _, weights in found.rows()] == [["x", "y"], ["x"], ["x"]]
    mean = found.mean("torchvision", {10.0: 1.0})
    assert mean is not None
    assert list(mean.values) == ["x"]


def test_the_section_has_tables_method_and_plot(tmp_path: Path) -> None:
    found = Results.of(runs(grid(-0.05)), ["torchvision", "tldet"])
    speeds = {(variant, dataset): 80.0 for variant in found.variants for dataset in found.datasets}
    environment = {"processor": "P", "cores": 2, "versions": {"torch": "2"}}
    write_report(QualityReport(found, runs(grid(-0.05)), 12, speeds, MEASURED, environment), tmp_path)
    text = (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "| x | 1 | 0.310 (0.183 to 0.437) | 0.260 (0.133 to 0.387) |" in text
    assert "| x | 10 | 0.500 | 0.450 |" in text
    area = next(line for line in text.splitlines() if line.startswith("| **area** | 2 |"))
    assert "-0.050 (-0.050 to -0.050; -0.050 to -0.050)" in area
    assert "12 of 12 runs" in text
    assert "Student's t" in text
    assert "Satterthwaite" in text
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert written["means"][-1]["differences"]["tldet"]["over_seeds"]["mean"] == pytest.approx(-0.05)


def test_a_variant_has_one_color_in_all_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, out: figures.append(figure) or out)
    one = curves.IntervalSeries([(1.0, 0.5, 0.4, 0.6), (3.0, 0.6, 0.6, 0.6)])
    panels = {"x": {"b": one}, "y": {"a": one, "b": one}, "z": {"a": one}, "w": {"a": one}}
    plots.plot_panels(panels, tmp_path / "a.png", title="t", xlabel="minutes")
    axes = figures[0].axes
    drawn = [{bars.get_label(): bars.lines[0].get_color() for bars in one.containers} for one in axes[:4]]
    assert drawn[0] == {"b": drawn[1]["b"]}
    assert drawn[2] == drawn[3] == {"a": drawn[1]["a"]}
    assert drawn[1]["a"] != drawn[1]["b"]
    assert [one.axison for one in axes] == [True] * 4 + [False] * 2
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["b", "a"]


def plan_of(tmp_path: Path, **more: Any) -> Plan:
    one = {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}
    whole = {"images": [one], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "t.json").write_text(json.dumps(whole))
    split = Split(tmp_path / "t.json", tmp_path)
    given = request(tmp_path / "out", **more)
    return Plan(given, chosen_variants(given), [Dataset(name, split, split) for name in given.datasets])


def test_runs_take_steps_at_the_speed_and_long_budgets_one_seed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, budgets=[10.0, 1.0], seeds=[4, 5], variant=["low=lr=0.001"])
    jobs = plan.jobs({("tldet", "digits"): 40.4, ("low", "digits"): 0.2})
    assert [(job.factors["minutes"], job.factors["seed"], job.variant, job.length) for job in jobs] == [
        (1.0, 4, "tldet", {"steps": 40}),
        (1.0, 4, "low", {"steps": 1}),
        (10.0, 4, "tldet", {"steps": 404}),
        (10.0, 4, "low", {"steps": 2}),
        (1.0, 5, "tldet", {"steps": 40}),
        (1.0, 5, "low", {"steps": 1}),
    ]
    assert jobs[0].call["seed"] == 4
    assert any(option.startswith("optimizer.lr=") for option in jobs[1].call["cfg_options"])
    assert jobs[3].folder.name == "low_datasetdigits_minutes10_seed4"
    all_seeds = plan_of(tmp_path, budgets=[10.0], seeds=[4, 5], all_seeds=True)
    assert len(all_seeds.jobs({("tldet", "digits"): 1.0})) == 2


def test_the_reference_comes_first(tmp_path: Path, script: Path) -> None:
    def names(**more: Any) -> list[str]:
        return list(chosen_variants(request(tmp_path, **more)))

    assert names() == ["tldet"]
    assert names(baseline=script, variant=["low=lr=0.001"]) == ["torchvision", "tldet", "low"]
    assert names(variant=["low=lr=0.001"], reference="low") == ["low", "tldet"]
    with pytest.raises(ConfigError, match="--reference x: no such variant; there are tldet"):
        names(reference="x")
    with pytest.raises(ConfigError, match="torchvision: is the name of the torchvision loop"):
        names(variant=["torchvision=lr=0.001"])


def test_arguments_of_the_loop() -> None:
    call = {"train": "t.json", "val": "v.json", "images": "i", "val_images": "j", "seed": 2}
    paths = ["t.json", "v.json", "i", "--val-images", "j", "--seed", "2"]
    assert loop_arguments(call, {"steps": 30.0}) == [*paths, "--steps", "30"]
    assert loop_arguments(call, {"minutes": 0.5}) == [*paths, "--minutes", "0.5"]


def test_missing_real_data_is_one_line(tmp_path: Path) -> None:
    given = request(tmp_path / "out", datasets=["cards", "voc"], data_root=tmp_path)
    with pytest.raises(
        DataError, match=r"dataset voc: .*instances.json: no such file; give --data-root, or --datasets cards"
    ):
        check_files(given)
    check_files(request(tmp_path / "out", datasets=["cards"], data_root=tmp_path))


def test_real_datasets(shared: Path, tmp_path: Path) -> None:
    given = request(tmp_path, datasets=["bccd", "voc"], data_root=shared / "data")
    check_files(given)
    sizes = []
    for name in given.datasets:
        data = prepare(name, given)
        images = [json.loads(split.annotations.read_text())["images"] for split in (data.train, data.test)]
        assert (data.train.images / images[0][0]["file_name"]).is_file()
        assert not {one["file_name"] for one in images[0]} & {one["file_name"] for one in images[1]}
        sizes.append(tuple(map(len, images)))
    assert sizes == [(205, 72), (20, 10)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "no_such.py"], "--baseline no_such.py: no such file; give the script, or none"),
        (["--baseline", "none", "--seeds", "0", "0"], "--seeds: a value is given twice"),
        (["--baseline", "none", "--variant", "low=lrr=1"], "variant low: lrr: neither an option"),
        (
            ["--baseline", "none", "--data-root", "/no_such"],
            "dataset bccd: /no_such/bccd/coco/train.json: no such file",
        ),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quality", "--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_speed_is_not_measured_on_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "environment", lambda: {"load": [3.0], "cores": 2})
    with pytest.raises(TrainingError, match=r"load average 3\.00: other processes use this machine"):
        quality(request(tmp_path / "out"))
    assert machine.is_busy({"load": [3.0], "cores": 2})


def only_the_loop(out: Path, script: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> QualityReport:
    """The benchmark without the variant that trains."""
    monkeypatch.setattr(run_module, "chosen_variants", lambda _: {"torchvision": None})
    return quality(request(out, baseline=script, **more))


def test_the_torchvision_loop_is_timed_run_and_scored(
    tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "is_busy", lambda _: False)
    report = only_the_loop(tmp_path / "out", script, monkeypatch, speed_minutes=0.5)
    assert report.speeds == {("torchvision", "digits"): 120.0}
    assert report.speed == MEASURED
    assert [(run["steps"], run["numbers"]["AP"]) for run in report.runs] == [(120, pytest.approx(1.0))]
    script.write_text(LOOP + "# changed", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"data\.script was"):
        only_the_loop(tmp_path / "out", script, monkeypatch, speed_minutes=0.5)


def test_finished_runs_are_kept_and_a_failed_one_is_repeated(
    tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, section = tmp_path / "broken", tmp_path / "out" / "quality.md"
    broken.touch()
    message = r"run torchvision, dataset digits, minutes 1, seed 1: .*the loop is broken \(after a fix"
    with pytest.raises(TrainingError, match=message):
        only_the_loop(tmp_path / "out", script, monkeypatch, seeds=[0, 1], speed=1.0)
    assert "1 of 2 runs" in section.read_text(encoding="utf-8")
    result = tmp_path / "out" / "runs" / "torchvision_datasetdigits_minutes1_seed0" / "result.json"
    assert json.loads(result.read_text())["numbers"]["AP"] == 0.0, "no detections after one step"
    before = result.stat().st_mtime_ns
    broken.unlink()
    report = only_the_loop(tmp_path / "out", script, monkeypatch, seeds=[0, 1], speed=1.0)
    assert [run["seed"] for run in report.runs] == [0, 1]
    assert result.stat().st_mtime_ns == before
    assert "2 of 2 runs" in section.read_text(encoding="utf-8")


def test_the_whole_path(tmp_path: Path) -> None:
    arguments = ["quality", "--out", str(tmp_path / "out"), "--datasets", "digits", "--budgets", "1", "--seeds", "0"]
    arguments += ["--baseline", "none", "--quick", "--speed", "2"]
    assert main(arguments) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert [(run["variant"], run["steps"]) for run in found["runs"]] == [("tldet", 2)]
    assert found["planned"] == 1
    assert 0 <= found["means"][0]["means"]["tldet"]["over_seeds"]["mean"] < 0.5
    text = (tmp_path / "out" / "quality.md").read_text(encoding="utf-8")
    assert "given by the user, not measured" in text
    result = tmp_path / "out" / "runs" / "tldet_datasetdigits_minutes1_seed0" / "result.json"
    before = result.stat().st_mtime_ns
    assert main(arguments) == 0
    assert result.stat().st_mtime_ns == before
