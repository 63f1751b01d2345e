"""``status.json``: what it contains at each point of a run, and that it never ends one."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tldet.workflows.training.status import STATUS_NAME, RunStatus, read_status

log = logging.getLogger("tldet.somewhere")


def runner(step: int = 0, *, best: int | None = None, end: str | None = None, main: bool = True) -> Any:
    return SimpleNamespace(
        state=SimpleNamespace(step=step, total=None, best_step=best),
        world=SimpleNamespace(main=main),
        schedule=SimpleNamespace(minutes=2.0),
        images_per_step=8,
        device=SimpleNamespace(type="cpu"),
        precision=SimpleNamespace(name="bf16"),
        hooks=[],
        end=lambda: end,
    )


def validation(ap: float) -> Any:
    return SimpleNamespace(result=SimpleNamespace(per_class={"cat": ap, "dog": -1.0}))


def started(status: RunStatus, trainer: Any, ap: float = 0.25) -> None:
    status.follow(trainer, ["train: 3 images"], validation(ap))
    status.before_train(trainer)


def test_the_points_of_a_run(tmp_path: Path) -> None:
    path, trainer = tmp_path / STATUS_NAME, runner()
    with RunStatus(tmp_path) as status:
        log.warning("before %s", "training")
        assert not path.exists()
        started(status, trainer)
        assert trainer.hooks == [status]
        found = read_status(path)
        assert (found["total_steps"], found["minutes"], found["end"]) == (None, 2.0, None)
        assert (found["data"], found["warnings"]) == (["train: 3 images"], ["before training"])
        assert (found["device"], found["precision"], found["images_per_step"]) == ("cpu", "bf16", 8)
        trainer.state.step, trainer.state.total = 4, 100
        status.after_train_iter(trainer, batch_idx=3)
        assert read_status(path)["total_steps"] == 100
        trainer.state.best_step = 4
        status.after_val(trainer)
        status.validation, trainer.state.step = validation(0.125), 8
        status.after_val(trainer)
        assert read_status(path)["last"] == {"step": 8, "AP": {"cat": 0.125}}
        assert read_status(path)["best"] == {"step": 4, "AP": {"cat": 0.25}}
        log.warning("late")
        assert read_status(path)["warnings"] == ["before training", "late"]
        status.after_run(trainer)
        assert read_status(path)["end"] == "interrupted"
    log.warning("of another command")
    resumed = runner(8, end="finished")
    with RunStatus(tmp_path) as status:
        log.warning("resumed")
        started(status, resumed)
        found = read_status(path)
        assert found["warnings"] == ["before training", "late", "resumed"]
        assert (found["end"], found["best"]["step"]) == (None, 4)
        status.after_run(resumed)
    assert read_status(path)["end"] == "finished"


def fail(folder: Path) -> None:
    with RunStatus(folder) as status:
        started(status, runner())
        raise ValueError("img.jpg is broken\nmore")


def test_the_error_that_ends_a_run(tmp_path: Path) -> None:
    for saved in (False, True):
        if saved:
            (tmp_path / "step_00000004.pt").touch()
        with pytest.raises(ValueError, match="broken"):
            fail(tmp_path)
        found = read_status(tmp_path / STATUS_NAME)
        assert found.get("end") == ("error: img.jpg is broken" if saved else None)
        assert (tmp_path / STATUS_NAME).exists() == saved, "a failed start leaves no files"


def test_other_processes_and_unwritable_folders(tmp_path: Path) -> None:
    with RunStatus(tmp_path) as status:
        started(status, runner(main=False))
        status.after_run(runner(main=False))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with RunStatus(tmp_path / "file" / "run") as status:
        started(status, runner())
        log.warning("still runs")
    (tmp_path / STATUS_NAME).write_text("[1]")
    assert read_status(tmp_path / STATUS_NAME) == {}
