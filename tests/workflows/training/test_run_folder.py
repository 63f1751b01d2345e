"""The folder of a run: no files after a failed start, and --resume, which starts or resumes a run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.tools import finetune_words
from tldet import checkpoint
from tldet.cli.main import main
from tldet.config import Config, read_config
from tldet.engine.logging import read_log
from tldet.errors import TrainingError
from tldet.system.locks import LOCK_NAME
from tldet.workflows.training.resume_checks import plain, refuse_other_arguments
from tldet.workflows.training.run_folder import RunFiles, removed_on_failure, resumes, start_over

NOTE = "# {folder}: {path}\n"


def finetune(data: Path, out: Path, *more: str) -> list[str]:
    return finetune_words(data, out, "--steps", "1", "--batch-size", "2", "--precision", "fp32", *more)


def message(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 0) -> str:
    assert main(arguments) == code
    return capsys.readouterr().err


def test_one_command_starts_a_run_and_resumes_it(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    job = finetune(digits, out, "--resume", "--lr", "1e-4")
    assert main(job) == 0
    printed, err = capsys.readouterr()
    assert f"--resume: no checkpoint in {out} yet; starting the run" in err
    assert re.search(r"^train: 16 images, \d+ objects of ", err, re.MULTILINE)
    assert re.search(r"^val: 6 images, \d+ objects of ", err, re.MULTILINE)
    assert "\nvalidation at step 1: AP " in printed
    assert f"\nnext:\n  tldet test {out / 'best.pt'}\n  tldet predict {out / 'best.pt'} " in printed
    assert "learning rate 0.0001, batch size 2" in err, "as given, not scaled from the recipe's batch size"
    config = read_config(out / "config.py")
    assert (config.get("optimizer.lr"), config.get("data.loader.batch_size")) == (1e-4, 2)
    step = checkpoint.step_path(out, 1).read_bytes()
    err = message(capsys, job)
    assert f"resuming from {out / 'step_00000001.pt'} after step 1" in err
    assert checkpoint.step_path(out, 1).read_bytes() == step, "nothing is left to do"
    for other, shown in (
        ("--steps", "--steps 2 (was 1)"),
        ("--seed", "--seed 2 (was 0)"),
        ("--epochs", "--epochs 2 (w"),
    ):
        arguments = (
            [*job, other, "2"] if other != "--epochs" else ["finetune", "--out", str(out), "--resume", other, "2"]
        )
        assert shown in message(capsys, arguments, 2)
    longer = ["finetune", "--no-report", "--out", str(out), "--resume", "--cfg-options", "schedule.steps=2"]
    assert "after step 1" in message(capsys, longer)
    assert checkpoint.step_path(out, 2).exists()


def test_train_starts_or_resumes_a_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    best = str(run / "best.pt")
    monkeypatch.chdir(run)
    job = ["train", "--no-report", str(run / "config.py"), "--work-dir", str(out), "--resume", "--init-from", "best.pt"]
    job += ["--device", "cpu", "--precision", "fp32", "--cfg-options", "schedule.steps=1"]
    assert main(job) == 0
    printed, err = capsys.readouterr()
    assert f"--resume: no checkpoint in {out} yet; starting the run" in err
    for name, images in (("train", 16), ("val", 6), ("test", 6)):
        assert re.search(rf"^{name}: {images} images, \d+ objects of .*\d+ classes", err, re.MULTILINE)
    assert f"\nnext:\n  tldet test {out / 'best.pt'}\n  tldet predict {out / 'best.pt'} " in printed
    assert checkpoint.load_checkpoint(out / "best.pt")["meta"]["weights_source"] == best
    monkeypatch.chdir(tmp_path)
    job[job.index("best.pt")] = best
    assert "after step 1" in message(capsys, job), "its initial weights are those of the run, in any folder"
    job[job.index(best)] = str(run / "step_00000006.pt")
    err = message(capsys, job, 2)
    assert f"the run in {out} was started with {best}; leave --init-from out" in err


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_over(
    digits: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    config = (run / "config.py").read_text().replace("'steps': 6", "'steps': 1")
    (out / "config.py").write_text(config)
    (out / "best.pt").write_bytes(b"of the killed run")
    err = message(capsys, ["finetune", "--out", str(out), "--resume"])
    assert "no checkpoint in" in err
    assert "renamed to best_before_1.pt" in err
    assert (out / "best_before_1.pt").read_bytes() == b"of the killed run"
    assert checkpoint.step_path(out, 1).exists()
    assert (out / "config.py").read_text() == config


@pytest.mark.parametrize("command", ["finetune", "pretrain", "extend"])
def test_resume_needs_a_run_or_the_data_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    out = tmp_path / "no"
    err = message(capsys, [command, "--out", str(out), "--resume"], 2)
    assert f"nothing to resume: {out} contains no run" in err
    assert not out.exists()


def test_unreadable_checkpoints_are_not_started_over(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(run, tmp_path / "out")
    for path in checkpoint.steps_in(out):
        path.write_bytes(b"cut off")
    assert "contains no readable checkpoint" in message(capsys, ["finetune", "--out", str(out), "--resume"], 2)


def test_names_of_renamed_files_are_unique(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "best.pt").write_text(str(number))
        start_over(tmp_path)
        assert (tmp_path / f"best_before_{number}.pt").read_text() == str(number)


def test_resuming_by_the_config_or_by_the_arguments(tmp_path: Path) -> None:
    assert not resumes(tmp_path, startable=True)
    (tmp_path / "config.py").write_text("")
    assert not resumes(tmp_path, startable=True)
    assert resumes(tmp_path, startable=False)
    (tmp_path / "step_00000001.pt").write_text("")
    assert resumes(tmp_path, startable=True)


def test_recorded_paths_are_those_of_the_folder_in_which_the_run_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "coco").mkdir()
    (tmp_path / "a.pt").touch()
    monkeypatch.chdir(tmp_path)
    record = plain({"data": Path("data"), "init-from": "a.pt", "weights": "coco", "model": "data", "steps": None})
    (tmp_path / "arguments.json").write_text(json.dumps(record))
    assert record["weights"] == "coco"
    assert record["model"] == "data"
    monkeypatch.chdir(tmp_path / "data")
    refuse_other_arguments(tmp_path, {"data": "../data", "init-from": tmp_path / "a.pt", "weights": "coco"})
    with pytest.raises(TrainingError, match=rf"--init-from .*a.pt \(was {tmp_path / 'a.pt'}\)"):
        refuse_other_arguments(tmp_path, {"init-from": "a.pt"})


def test_arguments_may_be_repeated_but_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = {"data": "data", "minutes": 10, "freeze": ["a", "b"], "scratch": True}
    (tmp_path / "arguments.json").write_text(json.dumps(record))
    refuse_other_arguments(tmp_path, {"data": tmp_path / "data", "minutes": 10.0, "freeze": ("a", "b"), "steps": None})
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for given, shown in (
        ({"data": "other"}, "--data other (was data)"),
        ({"data": "loop"}, "--data loop (was data)"),
        ({"steps": 3}, "--steps 3 (was not given)"),
        ({"freeze": ("b",), "scratch": True}, "--freeze b (was a b)"),
        ({"CKPT": "c.pt", "demo": True}, "CKPT c.pt (was not given), --demo (was not given)"),
    ):
        with pytest.raises(TrainingError) as caught:
            refuse_other_arguments(tmp_path, given)
        assert shown in str(caught.value)
    for content in ("", "[1]", '{"data": ', "[" * 100_000):
        (tmp_path / "arguments.json").write_text(content)
        with pytest.raises(TrainingError, match="no record of the arguments of the run; leave out --data, CKPT"):
            refuse_other_arguments(tmp_path, {"data": "data", "CKPT": "c.pt"})
        refuse_other_arguments(tmp_path, {"data": None})


def spoil_class_count(_: Path) -> list[str]:
    return ["--cfg-options", "model.head.num_classes=3"]


def spoil_image(data: Path) -> list[str]:
    victim = sorted((data / "valid").glob("*.jpg"))[2]
    victim.write_bytes(victim.read_bytes()[:900])
    return []


def one_json(data: Path) -> list[str]:
    shutil.rmtree(data / "valid")
    shutil.rmtree(data / "test")
    return spoil_class_count(data)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_class_count, "num_classes: is 3"),
        (spoil_image, "cannot be used"),
        (one_json, "num_classes: is 3"),
        (lambda _: ["--cfg-options", "optimizer.lrr=1"], "optimizer.lrr: unknown key"),
        (lambda _: ["--cfg-options", "training.best_metric=APP"], "training.best_metric"),
        (lambda _: ["--device", "nosuch"], "device nosuch"),
        (lambda _: ["--weights", "nowhere.pt"], "nowhere.pt"),
    ],
)
def test_a_failed_start_leaves_no_files(
    digits: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], list[str]],
    expected: str,
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(digits, data)
    more = spoil(data)
    assert expected in message(capsys, finetune(data, out, *more), 2)
    assert not out.exists()
    out.mkdir()
    (out / "config.py").write_text("of a killed run")
    assert expected in message(capsys, finetune(data, out, *more), 2)
    assert {path.name for path in out.iterdir()} - {LOCK_NAME} == {"config.py"}
    assert (out / "config.py").read_text() == "of a killed run"


def attempt(files: RunFiles, saved: str = "", error: Exception | None = None) -> None:
    """Training as far as :class:`RunFiles` knows it: it makes the folder, writes ``saved`` and may fail."""
    trainer: Any = SimpleNamespace(hooks=[], world=SimpleNamespace(main=True))
    with files.applied(trainer):
        files.folder.mkdir(exist_ok=True)
        (files.folder / "log.jsonl").touch()
        trainer.hooks[0].before_train(trainer)
        if saved:
            (files.folder / saved).write_text("x")
        if error is not None:
            raise error


def test_files_are_undone_if_training_fails_before_it_saves(tmp_path: Path) -> None:
    folder, error = tmp_path / "out", TrainingError("the loss is not finite")

    def files(value: int) -> RunFiles:
        return RunFiles(folder, Config({"a": value}).dump(), NOTE, {"seed": value})

    for kind in (ZeroDivisionError(), error):
        with pytest.raises(type(kind)):
            attempt(files(1), error=kind)
        assert not folder.exists()
    folder.mkdir()
    with pytest.raises(TrainingError):
        attempt(files(1), "log.jsonl", error)
    assert [path.name for path in folder.iterdir()] == ["log.jsonl"], "the log of the steps is kept"
    with pytest.raises(TrainingError):
        attempt(files(1), "step_00000001.pt", error)
    assert read_config(folder / "config.py").data == {"a": 1}, "there is something to resume"
    with pytest.raises(TrainingError):
        attempt(files(2), error=error)
    assert read_config(folder / "config.py").data == {"a": 1}, "as it was before"
    assert json.loads((folder / "arguments.json").read_text()) == {"seed": 1}
    attempt(files(3))
    assert read_config(folder / "config.py").data == {"a": 3}
    assert json.loads((folder / "arguments.json").read_text()) == {"seed": 3}


def failing_start(out: Path) -> None:
    with removed_on_failure(out, "data/old.json", "data/new.json", "split/a.json"):
        (out / "split").mkdir()
        for name in ("data/new.json", "split/a.json", "mine.txt"):
            (out / name).touch()
        raise TrainingError("no")


def test_only_new_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old.json").touch()
    with pytest.raises(TrainingError):
        failing_start(tmp_path)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert left == ["data", "data/old.json", "mine.txt"]


def test_a_new_run_records_its_arguments(run: Path, digits: Path) -> None:
    record = json.loads((run / "arguments.json").read_text())
    assert record == {"data": str(digits), "model": "retinanet_lite0", "steps": 6, "seed": 0}
    assert [one["step"] for one in read_log(run / "log.jsonl")]
