"""The report at the end of a run: its files, its detections, and that it cannot fail the run."""

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from rich.console import Console

from tldet import checkpoint
from tldet.cli.main import main
from tldet.data.dataset import CocoDataset
from tldet.data.settings import LoaderSettings
from tldet.errors import ConfigError, DataError
from tldet.structures import rle
from tldet.structures.detections import Detections
from tldet.workflows.report import finished
from tldet.workflows.report.finished import BestDetections, write_run_report
from tldet.workflows.report.run import run_sections
from tldet.workflows.training.outcome import stored_result
from tldet.workflows.training.schema import EvalSettings
from tldet.workflows.training.validation import Validation

FILES = {"report.html", "curves.png", "samples"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} & FILES


def forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("a second inference")


def test_a_run_ends_with_its_report(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finished, "of_checkpoint", forbidden)
    given = ["finetune", "--data", str(digits), "--out", str(tmp_path / "out"), "--model", "retinanet_lite0"]
    assert main([*given, "--steps", "1", "--batch-size", "2", "--input-size", "96x128"]) == 0
    assert names(tmp_path / "out") == FILES
    page = (tmp_path / "out" / "report.html").read_text()
    result = stored_result(tmp_path / "out" / "best.pt")
    assert result is not None
    assert f'<td class="number">{result.AR100:.3f}</td>' in page
    assert all(f'<section id="{name}"' in page for name in ("summary", "images", "training", "configuration"))
    counts = json.loads((tmp_path / "out" / "status.json").read_text())["data"]
    assert [line.split(": ")[0] for line in counts] == ["train", "val", "test"]
    assert [line.split()[1] for line in counts] == ["16", "6", "6"]
    shown = [f"<td>{line.split(': ', 1)[0]}</td><td>{line.split(': ', 1)[1]}</td>" for line in counts]
    assert [row for row in shown if row not in page] == []
    assert "Class transfer" not in page, "no detector to start from"
    samples = [cv2.imread(str(path)) for path in sorted((tmp_path / "out" / "samples").iterdir())]
    assert [image.shape for image in samples] == [(96, 128, 3)] * 6
    assert cv2.imread(str(tmp_path / "out" / "curves.png")).shape[1] > 1000
    assert f"report: {tmp_path / 'out' / 'report.html'} (" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_a_config_and_a_resumed_one_end_with_their_reports(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["train", str(run / "config.py"), "--work-dir", str(out), "--cfg-options"]
    assert main([*given, "schedule.steps=1"]) == 0
    assert names(out) == FILES
    for path in (out / "samples").iterdir():
        path.unlink()
    (out / "report.html").write_text("old")
    assert main([*given[:-1], "--resume", "--cfg-options", "schedule.steps=2"]) == 0
    assert names(out) == FILES
    assert len(list((out / "samples").iterdir())) == 6
    assert '<section id="training"' in (out / "report.html").read_text()


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run without a report."""
    return Path(shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("step_*")))


@pytest.fixture(scope="module")
def validation(digits: Path) -> Validation:
    """A validation whose detections are the objects, most of them moved a little."""
    folder = digits / "valid"
    dataset = CocoDataset(str(folder / "_annotations.coco.json"), str(folder))
    found = Validation(dataset, LoaderSettings(), EvalSettings(), losses=False)
    for number in range(len(dataset)):
        target = dataset.load(number)[1]
        scores = torch.linspace(0.2, 0.9, len(target.boxes))
        found.update([target], [Detections(target.boxes + 3 * scores[:, None], scores, target.labels)])
    found.finish()
    return found


def trainer(step: int, best: int | None, main: bool = True) -> Any:
    state = SimpleNamespace(step=step, best_step=best)
    return SimpleNamespace(state=state, world=SimpleNamespace(main=main))


def test_the_best_detections_are_kept(validation: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    best = BestDetections(validation)
    best.after_val(trainer(2, 2, main=False))
    assert best.columns is None
    best.after_val(trainer(2, 2))
    kept = best.columns
    assert kept is not None
    assert kept[0][0] is validation.evaluators[0].truth
    best.after_val(trainer(4, 2))
    assert best.columns is kept, "the earlier validation was better"
    best.after_val(trainer(6, None))
    assert best.columns is not kept, "without a best validation, the last one"
    monkeypatch.setattr(finished, "_MOST", 1)
    best.after_val(trainer(8, 8))
    assert (best.columns, best.too_many) == (None, True)


def told(folder: Path, best: BestDetections) -> str:
    """Write the report of a run; return what is printed."""
    text = StringIO()
    write_run_report(folder, folder / "best.pt", best, Console(file=text, width=500))
    return text.getvalue()


def test_a_failing_report_is_one_warning(
    copy: Path, validation: Validation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    best = BestDetections(validation)
    best.after_val(trainer(6, 6))

    def fails(*_: Any) -> Any:
        raise ConfigError("img.jpg: cannot be read\nsecond line")

    monkeypatch.setattr(finished, "analyze", fails)
    assert told(copy, best) == ""
    expected = f"{copy}: the report is incomplete (img.jpg: cannot be read); training is complete"
    assert [line for line in caplog.messages if line.startswith(expected)] == caplog.messages[-1:]
    assert names(copy) == {"curves.png"}

    def stops(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(finished, "analyze", stops)
    with pytest.raises(KeyboardInterrupt, match="training is complete and saved"):
        told(copy, best)


def test_a_resumed_run_evaluates_its_best_weights_again(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def again(folder: Path, request: Any) -> Any:
        asked.append((folder, request.split, request.precision))
        raise DataError("evaluated")

    monkeypatch.setattr(finished, "of_checkpoint", again)
    for drawn in ("training_plots", "run_sections"):  # takes seconds
        monkeypatch.setattr(finished, drawn, lambda *_: [])
    told(copy, BestDetections())
    assert asked == [(copy, "val", "fp32")]
    (copy / "report.html").write_text("old")
    finished_before = BestDetections()
    finished_before.first_step = 6
    told(copy, finished_before)
    assert len(asked) == 1, "the report of a run that was complete stays"
    lines = [json.loads(line) for line in (copy / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line["time"]["evaluation_seconds"] = 61.0
    (copy / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "report: " in told(copy, BestDetections())
    assert f"run `tldet report {copy}`" in (copy / "report.html").read_text()
    assert len(asked) == 1


def test_masks_are_drawn_from_results(copy: Path, validation: Validation) -> None:
    best = BestDetections(validation)
    best.after_val(trainer(6, 6))
    source = best.source(copy, copy / "best.pt")
    assert source is not None
    plain = finished._detections(source, 0, 0.0)
    assert len(plain) > 0
    assert (plain.scores[:-1] >= plain.scores[1:]).all()
    height, width = source.truth.sizes[0]
    corners = [[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in source.results.boxes.tolist()]
    masks = [rle.to_rle([one], (height, width)) for one in corners]
    masked = replace(source, results=replace(source.results, segmentations=masks))
    drawn = finished._detections(masked, 0, 0.0)
    assert drawn.masks is not None
    assert tuple(drawn.masks.shape) == (len(plain), height, width)


def test_without_a_report(run: Path) -> None:
    assert names(run) == set()


def test_class_transfer_and_data_of_a_checkpoint(copy: Path) -> None:
    path = copy / "best.pt"
    state = checkpoint.load_checkpoint(path)
    names = state["meta"]["class_names"]
    state["meta"]["classes_from"] = {name: None if name == names[0] else f"old {name}" for name in names}
    checkpoint.save(path, state)
    tables = {table.name: table.rows for section in run_sections(path, copy) for table in section.tables}
    assert tables["class_transfer"] == [
        [name, "newly initialized" if name == names[0] else f"old {name}"] for name in names
    ]
    assert [row[0] for row in tables["splits"]] == ["train", "val", "test"]
    (copy / "status.json").unlink()
    tables = {table.name: table.rows for section in run_sections(path, copy) for table in section.tables}
    assert "splits" not in tables
    assert {row[0] for row in tables["data"]} >= {"train", "val", "test"}
