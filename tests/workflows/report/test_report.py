"""Pages of ``tldet report`` and ``tldet compare``: content, files, stored thresholds, and a real browser."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.evaluation.errors.made import grid_truth, noisy
from tldet import checkpoint
from tldet.errors import ConfigError, DataError
from tldet.evaluation.columns import GroundTruth, Results
from tldet.evaluation.errors.calibration import scaled
from tldet.inference.loading import load
from tldet.inference.scores import select_scores
from tldet.runtime.scores import ScoreSettings
from tldet.structures.detections import Detections
from tldet.workflows.evaluate import evaluate
from tldet.workflows.report.command import report
from tldet.workflows.report.compare import compare
from tldet.workflows.report.report import Report

COUNT = 12


def write_files(folder: Path, truth: GroundTruth, found: Results, name: str = "dt.json") -> tuple[Path, Path]:
    """Write ground truth and detections as COCO JSON."""
    records = zip(
        truth.images.tolist(), truth.categories.tolist(), truth.boxes.tolist(), truth.areas.tolist(), strict=True
    )
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": w, "height": h} for i, (h, w) in enumerate(truth.sizes)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(truth.class_names)],
        "annotations": [
            {"id": number, "image_id": i, "category_id": k, "bbox": box, "area": area, "iscrowd": 0}
            for number, (i, k, box, area) in enumerate(records, 1)
        ],
    }
    rows = zip(
        found.images.tolist(), found.categories.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True
    )
    results = [{"image_id": i, "category_id": k, "bbox": box, "score": score} for i, k, box, score in rows]
    (folder / "gt.json").write_text(json.dumps(content))
    (folder / name).write_text(json.dumps(results))
    return folder / "gt.json", folder / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A folder with the page, the files and the inputs of a report."""
    folder = tmp_path_factory.mktemp("report")
    truth = grid_truth(COUNT)
    gt, dt = write_files(folder, truth, noisy(truth, 1, 0.2))
    found = report(gt=gt, dt=dt, out=folder / "page.html", tables=folder / "files", json=folder / "all.json")
    return folder, found


def test_numbers_are_those_of_evaluate(made: tuple[Path, Report]) -> None:
    folder, found = made
    expected = evaluate(folder / "gt.json", folder / "dt.json")
    stored = json.loads((folder / "all.json").read_text())
    assert {name: stored["summary"][name] for name in ("AP", "AP50", "AR100")} == {
        name: getattr(expected, name) for name in ("AP", "AP50", "AR100")
    }
    assert stored["summary"]["APl"] is None  # no large object
    classes = {row[0]: row[3] for row in stored["tables"]["classes"]["rows"]}
    assert classes == expected.per_class
    assert stored["summary"]["AP_low"] < expected.AP < stored["summary"]["AP_high"]
    assert found.summary == stored["summary"]


def test_page_loads_nothing(made: tuple[Path, Report]) -> None:
    page = (made[0] / "page.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']?(https?:)?//", page)
    assert "@import" not in page
    assert page.count("<section") == len(made[1].sections)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "NaN" not in re.sub(r"<script>.*", "", page, flags=re.DOTALL)


def test_every_table_and_plot_is_a_file(made: tuple[Path, Report]) -> None:
    folder, found = made
    names = {path.name for path in (folder / "files").iterdir()}
    tables = {f"{table.name}.{kind}" for table in found.tables for kind in ("csv", "tex", "json")}
    assert names == tables | {f"{plot.name}.{kind}" for plot in found.plots for kind in ("svg", "png")}
    head, *rows = (folder / "files" / "tide.csv").read_text().splitlines()
    assert head == "type,AP lost,errors,meaning"
    assert len(rows) == 8
    assert all(plot.xlabel and plot.ylabel for plot in found.plots)


def test_comparison_of_two_results_files(made: tuple[Path, Report], tmp_path: Path) -> None:
    truth = grid_truth(COUNT)
    gt, better = write_files(tmp_path, truth, noisy(truth, 2, 0.02), "better.json")
    found = compare([made[0] / "dt.json", better], gt=gt, out=tmp_path / "page.html")
    text = found.sections[0].text[0]
    assert text.startswith("better.json - dt.json: +")
    assert text.endswith("better.json is better")
    assert found.summary["better.json - dt.json"] == pytest.approx(
        found.summary["better.json"] - found.summary["dt.json"]
    )
    assert "Images with the largest change in F1" in (tmp_path / "page.html").read_text()


def test_wrong_arguments(made: tuple[Path, Report], tmp_path: Path) -> None:
    gt, dt = made[0] / "gt.json", made[0] / "dt.json"
    with pytest.raises(ConfigError, match="specify a checkpoint, or --gt and --dt"):
        report(gt=gt)
    with pytest.raises(ConfigError, match="--save-temperature need a checkpoint"):
        report(gt=gt, dt=dt, save_temperature=tmp_path / "new.pt")
    with pytest.raises(ConfigError, match="at least two"):
        compare([dt], gt=gt)
    with pytest.raises(DataError, match="no such image directory"):
        report(gt=gt, dt=dt, images=tmp_path / "missing", out=tmp_path / "page.html")
    with pytest.raises(DataError, match="is an input"):
        report(gt=gt, dt=dt, out=dt)


def test_thresholds_and_temperature_of_a_run_change_prediction(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.pt"
    found = report(run, out=tmp_path / "page.html", split="val", save_thresholds=new, save_temperature=new)
    page = (tmp_path / "page.html").read_text()
    assert "learning rate" in page
    assert "Configuration" in page
    stored = checkpoint.load_checkpoint(new)["meta"]["scores"]
    assert stored["temperature"] == found.summary["temperature"]
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    every = load(run / "best.pt", device="cpu", precision="fp32").predict(image, 0.0)
    chosen = load(new, device="cpu", precision="fp32").predict(image)
    least = [stored["thresholds"][name] for name in every.names()]
    kept = [score >= threshold for score, threshold in zip(every.scores.tolist(), least, strict=True)]
    expected = scaled(every.scores.numpy().astype(np.float64)[kept], stored["temperature"])
    assert chosen.scores.numpy() == pytest.approx(expected, abs=1e-5)
    assert any(kept)
    assert not all(kept)


def test_settings_of_scores() -> None:
    found = Detections(torch.tensor([[0.0, 0, 1, 1]] * 3), torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0, 1, 1]))
    assert len(select_scores(found, ScoreSettings(), None)) == 2
    assert len(select_scores(found, ScoreSettings((0.95, 0.1)), None)) == 2
    assert len(select_scores(found, ScoreSettings((0.95, 0.1)), 0.6)) == 1
    for wrong in ({"thresholds": {"a": 0.5}}, {"thresholds": [0.5, 0.5]}, {"temperature": 0.0}):
        with pytest.raises(Exception, match="must be a number"):
            ScoreSettings.of(wrong, ("a", "b"), "x.pt")


_FILTER = """<script>
const texts = () => document.getElementById("filter-count").textContent;
const set = (id, value) => {
  const one = document.getElementById(id);
  one.value = value;
  one.dispatchEvent(new Event("input"));
};
const seen = [texts()];
set("filter-error", "Loc"); seen.push(texts());
set("filter-score", "1"); seen.push(texts());
set("filter-score", "0"); set("filter-error", ""); set("filter-class", "0"); seen.push(texts());
const articles = document.querySelectorAll(".gallery article").length;
document.querySelector("#table-classes th button").click();
document.title = JSON.stringify([seen, articles, document.documentElement.scrollWidth > innerWidth]);
</script>"""


def in_browser(page: Path, width: int = 1400) -> list[Any]:
    """Open a page in headless Chromium and use its filters; return what the script wrote into the title."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium or google-chrome")
    copy = page.with_name("filtered.html")
    copy.write_text(page.read_text().replace("</body>", _FILTER + "</body>"))
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--virtual-time-budget=3000",
    ]
    done = subprocess.run(
        [chromium, *options, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=300
    )
    return list(json.loads(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 500])
def test_filters_work_in_a_browser(made: tuple[Path, Report], width: int) -> None:
    seen, articles, wide = in_browser(made[0] / "page.html", width)
    every, loose, none, first = (int(text.split(" of ")[0]) for text in seen)
    assert every == COUNT
    assert 0 < loose <= COUNT
    assert 0 < first <= COUNT
    assert none <= every
    assert articles == min(first, 24)
    assert not wide


@pytest.mark.slow
def test_a_large_page_is_small_and_fast(tmp_path: Path) -> None:
    """5,000 images, 80 classes and 500,000 detections: under 60 s of CPU time and 30 MB."""
    gt, dt = write_large(tmp_path)
    start = time.process_time()
    report(gt=gt, dt=dt, out=tmp_path / "page.html")
    assert time.process_time() - start < 60
    assert (tmp_path / "page.html").stat().st_size < 30e6


def write_large(folder: Path, images: int = 5000, classes: int = 80) -> tuple[Path, Path]:
    """Write a dataset with 7 objects and 100 detections per image."""
    random = np.random.default_rng(0)
    count = images * 100
    boxes = np.concatenate([random.uniform(0, 400, (count, 2)), random.uniform(10, 200, (count, 2))], 1).round(1)
    owner, labels = np.repeat(np.arange(images), 100), random.integers(0, classes, count)
    scores = random.beta(1, 6, count).round(4)
    real = np.flatnonzero(np.arange(count) % 100 < 7)
    near = real[:, None] + np.arange(0, 35, 7)  # five detections near each object
    boxes[near] = boxes[real][:, None] + random.normal(0, 5, (len(real), 5, 4)).round(1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    labels[near[random.random(near.shape) < 0.8]] = 0
    labels[near] = np.where(random.random(near.shape) < 0.8, labels[real][:, None], labels[near])
    rows = zip(owner.tolist(), labels.tolist(), boxes.tolist(), scores.tolist(), strict=True)
    found = [{"image_id": i, "category_id": k, "bbox": b, "score": s} for i, k, b, s in rows]
    objects = [
        {"id": n, "image_id": int(owner[r]), "category_id": int(labels[r]), "bbox": boxes[r].tolist(), "iscrowd": 0}
        | {"area": float(boxes[r, 2] * boxes[r, 3])}
        for n, r in enumerate(real.tolist(), 1)
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(classes)],
        "annotations": objects,
    }
    (folder / "gt.json").write_text(json.dumps(content))
    (folder / "dt.json").write_text(json.dumps(found))
    return folder / "gt.json", folder / "dt.json"
