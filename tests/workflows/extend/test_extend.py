"""``tldet extend`` from the command to the table: classes, teacher, metrics, resuming, and errors."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tldet import checkpoint
from tldet.cli.main import main
from tldet.data.layouts import Split
from tldet.data.shots import write_base
from tldet.engine.logging import read_log
from tldet.evaluation.report import mean_over
from tldet.transfer.restore import restore
from tldet.workflows.extend.data import ExtendData
from tldet.workflows.extend.extend import extend
from tldet.workflows.extend.report import ClassMetrics, ExtendReport
from tldet.workflows.extend.settings import extended_config
from tldet.workflows.test import test as evaluate
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.run_options import Length

OLD, NEW = tuple("01345679"), ("2", "8")
SMALL = ["data.loader.batch_size=2", "training.precision=fp32", "model.head.settings.score_thr=0.001"]
EACH_STEP = ["training.checkpoint_every=0.125", "training.max_keep_ckpts=9", "training.validate_every=None"]


@pytest.fixture(scope="module")
def parts(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits without two, and these two alone."""
    folder = tmp_path_factory.mktemp("parts")
    truth = digits / "train" / "_annotations.coco.json"
    write_base(truth, NEW, folder / "old.json", keep_images=True)
    write_base(truth, OLD, folder / "new.json", keep_images=True)
    return folder


@pytest.fixture(scope="module")
def base(digits: Path, parts: Path) -> Path:
    """A detector of eight digits after two steps."""
    given: dict[str, Any] = {"train": parts / "old.json", "images": digits / "train"}
    options = [*SMALL, "optimizer.lr=0.004", f"data.val.images={str(digits / 'train')!r}"]
    finetune(
        out=parts / "base",
        model="retinanet_lite0",
        val=parts / "old.json",
        steps=2,
        cfg_options=options,
        **given,
        report=False,
    )
    return parts / "base" / "best.pt"


def requested(digits: Path, parts: Path) -> dict[str, Any]:
    truth = digits / "train" / "_annotations.coco.json"
    return {"train": parts / "new.json", "val": truth, "images": digits / "train"}


@pytest.fixture(scope="module")
def whole(digits: Path, parts: Path, base: Path) -> Path:
    """A run of four steps, a checkpoint of each; the teacher's every guess counts."""
    options = [*EACH_STEP, "distill.score_thr=0.012", "distill.ignore_score_thr=0.01", "training.log_every=1"]
    extend(base, **requested(digits, parts), out=parts / "whole", steps=4, seed=3, cfg_options=options, report=False)
    return parts / "whole"


def test_the_new_detector_is_an_ordinary_one(whole: Path, base: Path) -> None:
    detector, state = restore(whole / "best.pt")
    assert detector.class_names == (*OLD, *NEW)
    assert state["meta"]["category_ids"] == [int(name) + 1 for name in (*OLD, *NEW)]
    assert state["meta"]["classes_from"] == {name: name if name in OLD else None for name in (*OLD, *NEW)}
    assert type(detector).__name__ == "Detector"
    assert state["meta"]["weights_source"] == str(base.resolve())
    config = state["config"]
    assert config["distill"]["teacher"] == str(base.resolve())
    assert len(config["distill"]["sha256"]) == 64
    assert "loss_distill" in read_log(whole / "log.jsonl")[0]


def test_the_table_s_numbers_are_those_of_tldet_test(whole: Path, base: Path) -> None:
    report = json.loads((whole / "extend.json").read_text())
    old, new = (evaluate(path, data=whole / "data" / "val.json") for path in (base, whole / "best.pt"))
    assert report["before"]["AP"] == {name: old.per_class[name] for name in OLD}
    assert report["after"]["AP"] == new.per_class
    assert report["after"]["AP50"] == new.per_class_ap50
    assert report["AP"]["old_change"] == mean_over(new.per_class, OLD) - mean_over(old.per_class, OLD)
    assert report["AP"]["new_after"] == mean_over(new.per_class, NEW)
    assert report["checkpoint"] == str(whole / "best.pt")


def test_a_resumed_run_is_the_same(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "out")
    for path in (tmp_path / "out").glob("*.pt"):
        if path.name != "step_00000002.pt":
            path.unlink()
    extend(out=tmp_path / "out", resume=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "curves.png", "samples"}
    assert "Class transfer" in (tmp_path / "out" / "report.html").read_text()
    ours, theirs = (checkpoint.load_checkpoint(folder / "step_00000004.pt") for folder in (tmp_path / "out", whole))
    for part in ("model", "ema"):
        assert list(ours[part]) == list(theirs[part])
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in theirs[part])
    assert ours["training"]["window"] == theirs["training"]["window"]
    logs = (
        [{k: v for k, v in r.items() if k != "time"} for r in read_log(f / "log.jsonl")]
        for f in (tmp_path / "out", whole)
    )
    assert next(logs) == next(logs)
    before, after = (json.loads((folder / "extend.json").read_text()) for folder in (whole, tmp_path / "out"))
    assert {**after, "checkpoint": None} == {**before, "checkpoint": None}


def test_plain_fine_tuning_and_the_command(
    digits: Path, parts: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = digits / "train" / "_annotations.coco.json"
    arguments = [
        "extend",
        "--no-report",
        str(base),
        "--train",
        str(parts / "new.json"),
        "--images",
        str(digits / "train"),
    ]
    arguments += ["--val", str(parts / "new.json"), "--old-val", str(truth), "--old-val-images", str(digits / "train")]
    arguments += ["--replay", str(parts / "old.json"), "--replay-images", str(digits / "train")]
    assert main([*arguments, "--out", str(tmp_path / "o"), "--no-distill", "--steps", "1"]) == 0
    out, err = capsys.readouterr()
    assert "AP before" in out
    assert "mean of old" in out
    best = tmp_path / "o" / "best.pt"
    assert f"\nnext:\n  tldet test {best} --data FOLDER_OR_JSON\n  tldet predict {best} " in out
    assert re.search(r"^train: 16 images\b.*, \d+ objects of ", err, re.MULTILINE)
    assert re.search(r"^val: \d+ images\b.*, \d+ objects of ", err, re.MULTILINE)
    config = checkpoint.load_checkpoint(tmp_path / "o" / "best.pt")["config"]
    assert "distill" not in config
    assert config["data"]["train"]["partial"] is False
    assert "loss_distill" not in read_log(tmp_path / "o" / "log.jsonl")[0]


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that ends with exit code 2."""
    assert main(["extend", *arguments]) == 2
    return capsys.readouterr().err.rstrip().splitlines()[-1]


@pytest.mark.slow
def test_a_changed_or_missing_teacher(
    whole: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "o")
    moved = tmp_path / "teacher.pt"
    resume = ["--out", str(tmp_path / "o"), "--resume", "--cfg-options", f"distill.teacher={moved}"]
    assert f"distill.teacher: {moved} is missing: restore the detector that was extended" in message(capsys, *resume)
    shutil.copyfile(whole / "best.pt", moved)
    assert f"distill.teacher: {moved} has changed since the run was started (SHA-256" in message(capsys, *resume)
    shutil.copyfile(base, moved)
    assert main(["extend", "--no-report", *resume]) == 0, "the same file elsewhere is the same teacher"


def test_invalid_requests_are_one_line_errors(
    whole: Path, base: Path, parts: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--train", str(parts / "new.json"), "--images", str(digits / "train"), "--val", str(parts / "new.json")]
    out = ["--out", str(tmp_path / "o")]
    assert "specify the checkpoint of a detector to extend, or --resume" in message(capsys, *data, *out)
    assert "is not a tldet checkpoint" in message(capsys, str(tmp_weights(tmp_path)), *data, *out)
    classifier = {**checkpoint.load_checkpoint(base), "meta": {"task": "classification"}}
    checkpoint.save(tmp_path / "c.pt", classifier)
    assert "is a classifier of `tldet pretrain`, not a detector" in message(capsys, str(tmp_path / "c.pt"), *data, *out)
    untrained = checkpoint.load_checkpoint(base)
    untrained["config"].pop("optimizer")
    checkpoint.save(tmp_path / "u.pt", untrained)
    assert "u.pt: its config has no optimizer and schedule" in message(capsys, str(tmp_path / "u.pt"), *data, *out)
    assert "distill.scor: unknown key; did you mean 'score_thr'?" in message(
        capsys, str(base), *data, *out, "--cfg-options", "distill.scor=0.4"
    )
    assert "--seed must be at least 0, not -1" in message(capsys, str(base), *data, *out, "--seed", "-1")
    assert "contains an earlier run" in message(capsys, str(base), *data, "--out", str(whole))
    assert "other arguments: --val " in message(capsys, *data, "--out", str(whole), "--resume")
    other = str(whole / "best.pt")
    assert f"other arguments: CKPT {other} (was {base})" in message(capsys, other, "--out", str(whole), "--resume")
    assert "extend.json: is not a report of tldet extend" in message(capsys, "--out", str(base.parent), "--resume")


def tmp_weights(folder: Path) -> Path:
    torch.save({"a": torch.zeros(1)}, folder / "w.pt")
    return folder / "w.pt"


def test_missing_metrics_are_shown_as_a_dash() -> None:
    report = ExtendReport(
        ("a",), ("b",), ClassMetrics({"a": -1.0}, {"a": -1.0}), ClassMetrics({"a": 0.5, "b": 0.25}, {"b": 0.5})
    )
    assert report.change is None
    cells = [list(column.cells) for column in report.table().columns]
    assert cells[1:] == [
        ["-", "-", "-", "-"],
        ["0.500", "0.500", "0.250", "0.250"],
        ["-", "-", "-", "-"],
        ["-", "-", "-", "-"],
        ["-", "-", "0.500", "0.500"],
    ]


@pytest.mark.parametrize(
    ("head", "score"), [("MaskRCNNHead", 0.7), ("CascadeRCNNHead", 0.7), ("GFLHead", 0.3), ("DFineHead", 0.3)]
)
def test_the_config_states_the_distillation_settings(tmp_path: Path, head: str, score: float) -> None:
    (tmp_path / "old.pt").write_bytes(b"old")
    config: dict[str, Any] = {"model": {"head": {"type": head}}, "optimizer": {"lr": 1}, "hooks": [1], "l2_sp": {}}
    config["schedule"] = {"policy": "multistep", "epochs": 12, "milestones": [8, 11]}
    state = {"config": config, "meta": {"input": {"short": 64, "long": 96}}}
    data = ExtendData(("a",), ("b", "c"), Split(tmp_path, tmp_path), Split(tmp_path, tmp_path), 10)
    made = extended_config(tmp_path / "old.pt", state, data, Length("steps", 100), 7, 4, distill=True)
    assert made["distill"] == {
        "teacher": str((tmp_path / "old.pt").resolve()),
        "sha256": hashlib.sha256(b"old").hexdigest(),
        "score_thr": score,
        "ignore_score_thr": 0.1,
        "features": 2.0,
    }
    assert made["model"]["head"]["num_classes"] == 3
    assert made["data"]["train"]["classes"] == ["a", "b", "c"]
    assert made["schedule"] == {"policy": "multistep", "milestones": [90], "steps": 100}
    assert made["training"]["seed"] == 7
    assert made["data"]["loader"] == {"batch_size": 4}
    assert made.keys() & {"hooks", "l2_sp"} == set()
    assert config["hooks"] == [1], "the checkpoint's own config stays"
