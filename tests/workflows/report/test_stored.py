"""Thresholds and temperature stored in a checkpoint: predict and export use them, test does not."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.evaluation.errors.made import results_of
from tldet import checkpoint
from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.evaluation.columns import Results
from tldet.evaluation.errors.assign import assign_error_types
from tldet.evaluation.errors.calibration import scaled
from tldet.evaluation.loading import load_ground_truth
from tldet.inference.loading import load
from tldet.inference.scores import select_scores
from tldet.runtime.scores import ScoreSettings
from tldet.structures.detections import Detections
from tldet.workflows.export.export import export
from tldet.workflows.report import command
from tldet.workflows.report.command import report
from tldet.workflows.report.report import Report
from tldet.workflows.test import test as evaluate_checkpoint


@pytest.fixture(scope="module")
def stored(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report, str]:
    """A checkpoint with thresholds and temperature of the validation split, and the report and page they are from."""
    folder = tmp_path_factory.mktemp("stored")
    new = folder / "new.pt"
    found = report(run, out=folder / "page.html", save_thresholds=new, save_temperature=new, precision="fp32")
    return new, found, (folder / "page.html").read_text()


def classes_of(found: Report) -> dict[str, dict[str, Any]]:
    """Return the table of classes."""
    (table,) = [one for one in found.tables if one.name == "classes"]
    return {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_thresholds_and_temperature_of_a_run_change_prediction(run: Path, stored: tuple[Path, Report, str]) -> None:
    new, found, page = stored
    assert "learning rate" in page
    assert "Configuration" in page
    assert "(val split)" in page
    scores = checkpoint.load_checkpoint(new)["meta"]["scores"]
    assert scores["temperature"] == found.summary["temperature"]
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    every = load(run / "best.pt", device="cpu", precision="fp32").predict(image, 0.0)
    chosen = load(new, device="cpu", precision="fp32").predict(image)
    least = [scores["thresholds"][name] for name in every.names()]
    kept = [score >= threshold for score, threshold in zip(every.scores.tolist(), least, strict=True)]
    expected = scaled(every.scores.numpy().astype(np.float64)[kept], scores["temperature"])
    assert chosen.scores.numpy() == pytest.approx(expected, abs=1e-5)
    assert any(kept)
    assert not all(kept)


def predicted(path: Path, truth: Any, folder: Path) -> Results:
    """Return what predict finds on the images of a dataset, without a score threshold."""
    detector = load(path, device="cpu", precision="fp32")
    parts: list[list[Any]] = [[], [], [], []]
    for rank, name in enumerate(truth.file_names):
        found = detector.predict(read_image(folder / name))
        corners = found.boxes.double().numpy()
        parts[0] += [rank] * len(found)
        parts[1] += found.labels.tolist()
        parts[2] += np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
        parts[3] += found.scores.tolist()
    return results_of(*parts)


def test_predict_reaches_precision_and_recall_of_the_page(stored: tuple[Path, Report, str], digits: Path) -> None:
    new, report_, _ = stored
    rows, thresholds = classes_of(report_), checkpoint.load_checkpoint(new)["meta"]["scores"]["thresholds"]
    overall = report_.summary["score_threshold"]
    own = {name: row["score threshold"] for name, row in rows.items()}
    assert thresholds == {name: overall if one is None else one for name, one in own.items()}
    truth = load_ground_truth(digits / "valid" / "_annotations.coco.json", "bbox")
    assigned = assign_error_types(truth, predicted(new, truth, digits / "valid"))
    checked = 0
    for k, name in enumerate(truth.class_names):
        mine = assigned.results.categories == k
        hits = int((assigned.hits & mine).sum())
        if own[name] is None:
            assert hits == 0
            continue
        checked += 1
        assert hits / int(mine.sum()) == pytest.approx(rows[name]["precision"]), name
        assert hits / rows[name]["objects"] == pytest.approx(rows[name]["recall"]), name
    assert checked > 0


def test_test_ignores_them(run: Path, stored: tuple[Path, Report, str]) -> None:
    one, other = (evaluate_checkpoint(path, split="val").to_dict() for path in (run / "best.pt", stored[0]))
    assert one == other


def test_an_exported_detector_has_them(
    run: Path, stored: tuple[Path, Report, str], digits: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    path = export(stored[0], "onnx", out=tmp_path, verify=False).path
    predictor, original = load(path), load(stored[0], device="cpu", precision="fp32")
    image = read_image(sorted((digits / "test").glob("*.jpg"))[0])
    found, expected = predictor.predict(image), original.predict(image)
    assert len(found) == len(expected)
    assert 0 < len(found) < len(predictor.predict(image, 0.0))
    assert found.scores.numpy() == pytest.approx(expected.scores.numpy(), abs=1e-4)
    given = {"data": digits / "test"}
    assert (
        pytest.approx(evaluate_checkpoint(run / "best.pt", **given).AP, abs=1e-3)
        == evaluate_checkpoint(path, **given).AP
    )


def test_the_split_that_values_are_chosen_on(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def stop(_: Any, request: Any) -> Any:
        asked.append((request.split, request.data))
        raise DataError("asked")

    monkeypatch.setattr(command, "of_checkpoint", stop)
    new = {"save_thresholds": tmp_path / "new.pt"}
    for given in (
        {},
        new,
        {**new, "split": "test"},
        {**new, "data": "d.json"},
        {"save_temperature": tmp_path / "t.pt"},
    ):
        with pytest.raises(DataError, match="asked"):
            report(run, out=tmp_path / "page.html", **given)
    assert asked == [(None, None), ("val", None), ("test", None), (None, "d.json"), ("val", None)]
    monkeypatch.undo()
    text = StringIO()
    out = tmp_path / "page.html"
    report(run, out=out, **new, split="test", console=Console(file=text, width=500))
    assert "chosen on the test split" in caplog.text
    assert f"thresholds of the test split stored in {tmp_path / 'new.pt'}" in text.getvalue()
    assert "(test split)" in out.read_text()


def test_settings_of_scores() -> None:
    found = Detections(torch.tensor([[0.0, 0, 1, 1]] * 3), torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0, 1, 1]))
    assert len(select_scores(found, ScoreSettings(), None)) == 2
    assert len(select_scores(found, ScoreSettings((0.95, 0.1)), None)) == 2
    assert len(select_scores(found, ScoreSettings((0.95, 0.1)), 0.6)) == 1
    for wrong in ({"thresholds": {"a": 0.5}}, {"thresholds": [0.5, 0.5]}, {"temperature": 0.0}):
        with pytest.raises(Exception, match="must be a number"):
            ScoreSettings.of(wrong, ("a", "b"), "x.pt")
