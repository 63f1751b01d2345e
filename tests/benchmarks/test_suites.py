"""Each suite at its smallest: the JSON has its fields, and its numbers are possible ones."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from benchmarks import annotations, eval, growth, overhead, pairs, size, video
from benchmarks import data as data_suite
from benchmarks.__main__ import main
from benchmarks.run import benchmark
from benchmarks.timing import Times
from tldet.errors import ConfigError
from tldet.workflows.export.export import export

FIELDS = {"name", "baseline", "each", "ours", "theirs", "ratio", "memory", "peak", "checks"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval, "QUICK_IMAGES", 12)
    monkeypatch.setattr(annotations, "QUICK_IMAGES", 50)
    monkeypatch.setattr(size, "QUICK_IMAGES", 50)
    monkeypatch.setattr(size, "QUICK_MANY", 100)
    monkeypatch.setattr(data_suite, "QUICK_IMAGES", 2)
    monkeypatch.setattr(data_suite, "STORED", (128, 170))
    monkeypatch.setattr(video, "QUICK_FRAMES", 3)
    monkeypatch.setattr(overhead, "QUICK_STEPS", 2)


def rows_of(name: str, **options: Any) -> list[dict[str, Any]]:
    """The suite's rows, after a look at each."""
    found = benchmark([name], quick=True, repeats=1, **options)
    suite = json.loads(json.dumps(found))["suites"][name]
    assert suite["seconds"] > 0
    for row in suite["rows"]:
        assert set(row) == FIELDS
        for side in ("ours", "theirs", "ratio"):
            values = row[side]
            assert 0 < values["q1"] <= values["median"] <= values["q3"]
            assert len(values["samples"]) >= 1
        assert row["memory"] is None or min(row["memory"]["ours"], row["memory"]["theirs"]) > 5
        assert row["peak"] is None or 0 < row["peak"]["share"] < 10  # others may use the machine
    return suite["rows"]


def test_eval() -> None:
    files, scoring = rows_of("eval")
    assert files["checks"]["metrics bit-identical"] is True
    assert 0 < files["checks"]["AP"] < 1
    assert files["memory"]["ours"] > 0
    assert scoring["ours"]["median"] < files["ours"]["median"]


def test_data() -> None:
    rows = rows_of("data", size=(96, 128), batch=2)
    assert [row["baseline"] for row in rows[:3]] == [
        "torchvision v2 on Pillow",
        "torchvision v2 on decode_jpeg",
        "decoding and resizing alone",
    ]
    assert rows[3]["checks"]["decoded at"] == "1/2"
    assert [row["name"] for row in rows[4:]] == ["annotations, first reading", "annotations, from the cache"]


def test_video() -> None:
    rows = rows_of("video", size=(64, 96))
    assert [row["baseline"] for row in rows] == [
        "detection alone, batch size 1",
        "detection alone, batch size 4",
    ]
    for row in rows:
        assert row["checks"]["frames/s"] == pytest.approx(1 / row["ours"]["median"])
        assert row["checks"]["boxes per frame"] >= 1


@pytest.mark.slow
def test_growth(tmp_path: Path) -> None:
    found = benchmark(["growth"], quick=True, repeats=1, models=["fcos_lite0"], json=tmp_path / "grown.json")
    curves = json.loads((tmp_path / "grown.json").read_text())["suites"]["growth"]["curves"]
    assert curves == found["suites"]["growth"]["curves"]
    names = [curve["name"] for curve in curves]
    assert names == [*(f"fcos_lite0, {name}" for name in ("predicting", "batch", "objects", "classes")), "reading"]
    for curve in curves:
        assert all(point["seconds"]["median"] > 0 and point["memory_mb"] >= 0 for point in curve["points"])
    assert cv2.imread(str(tmp_path / "grown.png")) is not None


def test_a_curve_s_slope_is_the_steepest_between_neighbors() -> None:
    values = ((1, 1.0, 1.0), (10, 2.0, 20.0), (100, 40.0, 3000.0))
    curve = growth.Curve("a", "things", tuple(growth.Point(x, Times((t,)), mb) for x, t, mb in values))
    assert curve.of_time == pytest.approx(math.log10(20))
    assert curve.of_memory == pytest.approx(2.0), "from 30 MB on"


@pytest.mark.slow
def test_infer(tmp_path: Path) -> None:
    rows = rows_of("infer", models=["retinanet_r50", "none_such"], size=(96, 128), json=tmp_path / "a" / "b.json")
    fp32 = rows[-1]
    assert fp32["name"] == "retinanet_r50 in fp32"
    assert fp32["checks"]["weights"] == "shared"
    assert fp32["checks"]["matching detections"] > 0.95
    written = json.loads((tmp_path / "a" / "b.json").read_text())
    assert written["suites"]["infer"]["rows"][-1] == fp32
    assert written["suites"]["infer"]["skipped"][0].startswith("none_such: has no counterpart")
    assert {"processor", "cores", "threads", "bf16", "load", "versions"} <= set(written["environment"])


@pytest.mark.slow
def test_exported_detectors_and_their_checkpoint(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = export(run / "best.pt", "onnx", out=tmp_path, verify=False).path
    with pytest.raises(ConfigError, match=r"best\.onnx: specify a second --model to compare it with"):
        rows_of("infer", models=[str(path)], size=(96, 128))
    shutil.copy(run / "best.pt", tmp_path)
    rows = rows_of("infer", models=[str(path)], size=(96, 128), batch=2)
    assert [(row["name"], row["baseline"]) for row in rows] == [
        ("best.onnx", "best.pt"),
        ("best.onnx without torch", "best.pt"),
    ]
    assert all(row["checks"]["matching detections"] > 0.95 and row["checks"]["detections"] > 0 for row in rows)
    assert rows[1]["memory"]["ours"] < rows[0]["memory"]["ours"] / 1.5


@pytest.mark.slow
def test_train() -> None:
    rows = rows_of("train", models=["faster_rcnn_r50"], size=(64, 96))
    assert rows[-1]["name"] == "trainer"
    assert any(row["name"] == "faster_rcnn_r50 in fp32" for row in rows)


def test_depthwise() -> None:
    rows = rows_of("depthwise", models=["fcos_lite0", "fcos_r50"], size=(64, 96))
    assert [row["name"] for row in rows][:1] == ["fcos_lite0 in fp32"]
    assert all("rewritten convolutions" in row["checks"] for row in rows)


@pytest.mark.slow
def test_startup() -> None:
    assert [row["name"] for row in rows_of("startup")][:2] == ["tldet --help", "import tldet"]


def test_a_missing_recipe_is_left_out_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "PAIRS", (*pairs.PAIRS, pairs.Pair("later_r50", "x", "y", False)))
    chosen, skipped = pairs.chosen_pairs(("later_r50", "retinanet_r50"))
    assert [pair.recipe for pair in chosen] == ["retinanet_r50"]
    assert skipped == ["later_r50: this version has no such recipe"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--size", "8", "8"], "--size 8 8"),
        (
            ["infer", "--quick", "--model", "nonsense"],
            "--model nonsense: has no counterpart in torchvision; avail",
        ),
        (["eval", "--json", "/dev/null/x.json"], "cannot be written"),
        (["infer", "--model", "none.onnx"], "none.onnx: no such file"),
        (["data", "--quick", "--data", "no_such_folder"], "no_such_folder: no such folder"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_size() -> None:
    found = benchmark(["size"], quick=True, repeats=1)["suites"]["size"]["measurements"]
    few, many = ([one for one in found if one["data"].startswith(f"{images} images")] for images in (50, 100))
    names = ["first reading", "peak memory of the first reading", "reopening from the cache"]
    assert [one["name"] for one in few[:3]] == [one["name"] for one in many[:3]] == names
    assert all(one["theirs"] > 0 for one in few[:3])
    assert all(one["theirs"] is None for one in many)
    assert all(one["ours"] > 0 for one in found if one["unit"] == "s")
