"""``tldet watch`` on runs in every state: starting, running, finished, killed, damaged, and on other folders."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from rich.console import Console

from tldet.cli.main import main
from tldet.engine.logging import read_log
from tldet.errors import DataError
from tldet.system.locks import LOCK_NAME, in_use
from tldet.visualize.text_plot import text_plot
from tldet.workflows.training.status import STATUS_NAME, read_status
from tldet.workflows.watch import watch as module
from tldet.workflows.watch.run_state import read_run_state
from tldet.workflows.watch.view import view_lines
from tldet.workflows.watch.watch import watch

DATA = ["train: 16 images, 60 objects of 2 classes", "val: 6 images, 20 objects of 2 classes"]
STATUS: dict[str, Any] = {
    "warnings": ["a.json: 3 annotations without iscrowd"],
    "end": None,
    "data": DATA,
    "total_steps": 40,
    "last": {"step": 20, "AP": {"cat": 0.25, "dog": 0.5}},
    "best": {"step": 10, "AP": {"cat": 0.75, "dog": 0.5}},
}


def train_line(step: int, loss: float | None = 1.5) -> str:
    times = {"seconds": 0.5 * step, "images_per_second": 4.0, "peak_mb": 1000.0}
    record = {"type": "train", "step": step, "epoch": step / 8, "lr": 1e-3, "loss": loss, "time": times}
    return json.dumps(record) + "\n"


def val_line(step: int, ap: float, best: float, best_step: int) -> str:
    values = {"AP": ap, "AP50": ap / 2, "val_loss": 2.0, "best": best, "best_step": best_step}
    return json.dumps({"type": "val", "step": step, "epoch": step / 8, **values, "time": {}}) + "\n"


LINES = [
    *(train_line(step, 3 - step / 10) for step in (2, 4, 6, 8, 10)),
    val_line(10, 0.625, 0.625, 10),
    *(train_line(step, 3 - step / 10) for step in (12, 14, 16, 18, 20)),
    val_line(20, 0.375, 0.625, 10),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run that was killed after step 20."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(LINES))
    (folder / STATUS_NAME).write_text(json.dumps(STATUS))
    (folder / LOCK_NAME).touch()
    return folder


@pytest.fixture
def locked(folder: Path) -> Iterator[FileLock]:
    """The lock of the folder, held as by a running process."""
    lock = FileLock(folder / LOCK_NAME)
    with lock:
        yield lock


def shown(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["watch", str(folder), *more]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    return found.out


def test_a_running_run(folder: Path, locked: FileLock, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(folder, capsys, "--once").splitlines()
    assert lines[0] == f"{folder}: running"
    assert lines[1].split("  ") == [
        "step 20/40", "50 %", "epoch 2.5", "loss 1", "lr 1.00e-03", "4.0 images/s", "peak 1,000 MB", "eta 0:10"
    ]  # fmt: skip
    table = [line.split() for line in lines[lines.index(next(x for x in lines if x.startswith("validation"))) :]]
    assert table[:4] == [
        ["validation", "AP", "AP50", "val_loss"],
        ["10", "0.625", "0.3125", "2", "best"],
        ["20", "0.375", "0.1875", "2"],
        ["best", "so", "far:", "0.625", "at", "step", "10"],
    ]
    assert "AP by class at step 20: dog: 0.500, cat: 0.250" in lines
    assert lines[-3:] == [*DATA, "warning: a.json: 3 annotations without iscrowd"]
    assert "loss by training step" in lines
    assert "█" in "".join(lines)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"end": "finished"}, "finished"),
        ({"end": "interrupted"}, "stopped; --resume continues the run"),
        ({"end": "no gain"}, "ended early: no gain"),
        ({"end": "error: out of memory"}, "error: out of memory"),
        ({"end": None}, "killed after step 20; --resume continues the run"),
    ],
)
def test_a_run_that_has_ended_is_shown_once(
    folder: Path, capsys: pytest.CaptureFixture[str], status: dict[str, Any], text: str
) -> None:
    (folder / STATUS_NAME).write_text(json.dumps({**STATUS, **status}))
    lines = shown(folder, capsys).splitlines()
    assert lines[0] == f"{folder}: {text}"
    assert "eta" not in lines[1]


def test_a_run_on_another_machine(folder: Path) -> None:
    (folder / STATUS_NAME).write_text(json.dumps({**STATUS, "host": "node 7"}))
    state = read_run_state(folder)
    assert state.text.startswith("running (host node 7, last log record 0:0")
    assert not state.ended


def test_a_run_that_has_not_started(folder: Path, locked: FileLock, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "log.jsonl").unlink()
    (folder / STATUS_NAME).unlink()
    assert shown(folder, capsys, "--once") == f"{folder}: starting\n"
    locked.release()
    (folder / "config.py").touch()
    assert shown(folder, capsys) == f"{folder}: not started\n"


def test_damaged_files(folder: Path, locked: FileLock, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "log.jsonl").write_text("".join(LINES) + train_line(22)[:30])
    (folder / STATUS_NAME).write_text("{")
    text = shown(folder, capsys, "--once")
    assert "step 20/?" in text, "an incomplete last line is being written"
    assert "is damaged" not in text
    (folder / "log.jsonl").write_text("".join([*LINES[:4], "\0\0\n", *LINES[4:], train_line(22, None)]))
    text = shown(folder, capsys, "--once")
    assert "step 8/?" in text
    assert "warning: log.jsonl: line 5 is damaged; this line and 9 after it are ignored" in text


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda folder: folder / "missing", "no such folder"),
        (lambda folder: folder / "log.jsonl", "is a file; use its folder"),
        (lambda folder: folder.parent, "is not the folder of a run (no log.jsonl); it contains the runs {folder}"),
    ],
)
def test_other_folders_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str], made: Any, message: str) -> None:
    assert main(["watch", str(made(folder))]) == 2
    error = capsys.readouterr().err
    assert error == f"tldet watch: error: {made(folder)}: {message.format(folder=folder)}\n"


def test_new_records_are_followed_line_by_line(folder: Path, locked: FileLock, monkeypatch: pytest.MonkeyPatch) -> None:
    def resumed() -> None:
        (folder / "log.jsonl").write_text("".join(LINES[:8]))

    def continued() -> None:
        (folder / "log.jsonl").write_text("".join([*LINES[:8], train_line(16, None)]))
        (folder / STATUS_NAME).write_text(json.dumps({**STATUS, "warnings": [*STATUS["warnings"], "late"]}))

    def ended() -> None:
        (folder / STATUS_NAME).write_text(json.dumps({**STATUS, "end": "finished"}))
        locked.release()

    steps = iter([resumed, continued, ended])
    monkeypatch.setattr(module.time, "sleep", lambda _: next(steps)())
    text = StringIO()
    watch(folder, console=Console(file=text, width=200))
    lines = text.getvalue().splitlines()
    assert lines[:4] == [f"{folder}: running", *DATA, "warning: a.json: 3 annotations without iscrowd"]
    assert lines[4].startswith("step 6/40"), "the last ten records"
    assert [line.partition("  ")[0] for line in lines[-5:]] == [
        "step 20/40",
        "validation at step 20: AP 0.375, AP50 0.1875, val_loss 2 (best 0.625 at step 10)",
        "warning: late",
        "step 16/40",
        f"{folder}: finished",
    ]
    assert "loss not finite" in lines[-2]


def test_a_terminal_is_redrawn(folder: Path, locked: FileLock, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended() -> None:
        with (folder / "log.jsonl").open("a") as file:
            file.write(train_line(40))
        locked.release()

    steps = iter([lambda: None, ended])
    monkeypatch.setattr(module.time, "sleep", lambda _: next(steps)())
    text = StringIO()
    watch(folder, console=Console(file=text, width=120, height=30, force_terminal=True, color_system=None))
    drawn = text.getvalue()
    assert drawn.count("loss by training step") >= 3
    assert "running" in drawn
    assert "step 40/40" in drawn.rpartition("killed after step 40")[2]


def test_ctrl_c_ends_quietly(folder: Path, locked: FileLock) -> None:
    command = [sys.executable, "-m", "tldet.cli", "watch", str(folder), "--interval", "0.05"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{folder}: running\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_the_files_of_a_real_run(run: Path) -> None:
    status = read_status(run / STATUS_NAME)
    assert (status["end"], status["total_steps"], status["images_per_step"]) == ("finished", 6, 2)
    assert status["data"][0].startswith("train: 16 images")
    assert status["last"]["step"] == 6
    state = read_run_state(run)
    assert (state.text, state.step, state.ended) == ("finished", 6, True)
    assert len(state.records) == len(read_log(run / "log.jsonl"))
    assert any(line.startswith("AP by class at step 6") for line in view_lines(state, 80))


def test_in_use(tmp_path: Path) -> None:
    assert not in_use(tmp_path)
    assert not (tmp_path / LOCK_NAME).exists()
    with FileLock(tmp_path / LOCK_NAME):
        assert in_use(tmp_path)
    assert not in_use(tmp_path)
    with pytest.raises(DataError):
        read_run_state(tmp_path / "none")


@pytest.mark.parametrize(
    "damage",
    [
        {"total_steps": "40"},
        {"warnings": 5},
        {"warnings": [None]},
        {"data": {}},
        {"end": ["finished"]},
        {"last": []},
        {"last": {"step": 3}},
        {"last": {"step": 3, "AP": {"cat": None}}},
        {"host": 7},
    ],
)
def test_a_status_with_a_value_of_another_kind_is_ignored(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: dict[str, Any]
) -> None:
    (folder / STATUS_NAME).write_text(json.dumps({**STATUS, **damage}))
    assert read_status(folder / STATUS_NAME) == {}
    assert main(["watch", str(folder)]) == 0
    assert "step 20/?" in capsys.readouterr().out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_opened(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / STATUS_NAME).unlink()
    os.mkfifo(folder / STATUS_NAME)
    assert read_status(folder / STATUS_NAME) == {}
    (folder / "log.jsonl").unlink()
    os.mkfifo(folder / "log.jsonl")
    assert main(["watch", str(folder)]) == 2
    assert capsys.readouterr().err.endswith("log.jsonl: is a pipe, not a regular file\n")


@pytest.mark.parametrize("interval", ["0", "nan", "1e300"])
def test_intervals_are_checked(folder: Path, capsys: pytest.CaptureFixture[str], interval: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["watch", str(folder), "--interval", interval])
    assert "--interval: must be above 0 and at most 86400" in capsys.readouterr().err


def test_plots_of_steps_out_of_order_and_of_huge_values() -> None:
    assert text_plot([3, 1, 2], [30, 10, 20], width=40, height=3) == text_plot(
        [1, 2, 3], [10, 20, 30], width=40, height=3
    )
    huge = text_plot([1, 2, 3], [1e308, -1e300, 1e300], width=40, height=3)
    assert huge == text_plot([2, 3], [-1e300, 1e300], width=40, height=3)


def test_text_plot() -> None:
    lines = text_plot([0, 1, 2, 3], [0.0, 1.0, float("nan"), 3.0], width=20, height=2)
    assert [len(line) for line in lines] == [20, 20, 20]
    assert lines[0].startswith("       3 ")
    assert lines[0].endswith("█")
    assert lines[1][9] == "▁", "the lowest value is visible"
    assert lines[1].startswith("       0 ")
    assert lines[2].split() == ["0", "3"]
    plain = text_plot([0, 1], [1.0, 2.0], width=20, height=3, blocks=False)
    assert all(line.isascii() for line in plain)
    assert len({len(line.rstrip()) for line in text_plot([0, 1], [2.0, 2.0], width=20, height=2)[:1]}) == 1
    assert text_plot([1], [float("nan")], width=20, height=3) == []
