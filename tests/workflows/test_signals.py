"""Signals to a whole process group, as ``timeout`` and job managers send them: the run is saved and can be resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tldet import checkpoint
from tldet.engine.log import read_log

from .test_kill import command, same, write_config

ROOT = Path(__file__).resolve().parents[2]


def stopped(given: list[str], ready: Callable[[], bool], *numbers: int) -> tuple[int, str]:
    """Start a command in a process group, signal the group once ``ready``; returns its exit code and messages."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    while process.poll() is None and not ready():
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]
    for number in numbers:
        os.killpg(process.pid, number)
    try:
        _, said = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def logged(folder: Path, steps: int) -> Callable[[], bool]:
    """Whether so many steps are in the log; every step is."""
    path = folder / "log.jsonl"
    return lambda: path.exists() and path.read_bytes().count(b'"type": "train"') >= steps


def assert_resumes_to_the_bit(config: Path, whole: Path, cut: Path) -> None:
    subprocess.run(command(config, whole), check=True, capture_output=True)
    subprocess.run(command(config, cut, "--resume"), check=True, capture_output=True)
    ours, theirs = (checkpoint.load(folder / "step_00000016.pt") for folder in (whole, cut))
    for state in (ours, theirs):
        del state["training"]["seconds"]
    assert [key for key in ours if not same(ours[key], theirs[key])] == []


@pytest.mark.slow
def test_workers_survive_and_the_run_is_saved(digits: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.py", digits, workers=2)
    folder = tmp_path / "cut"
    code, said = stopped(command(config, folder), logged(folder, 3), signal.SIGTERM)
    assert code == 130, said
    assert "Traceback" not in said
    assert "stopped after step" in said
    steps = read_log(folder / "log.jsonl")[-1]["step"]
    assert (folder / f"step_{steps:08d}.pt").exists(), "the last finished step is saved"
    assert_resumes_to_the_bit(config, tmp_path / "whole", folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_while_validation_starts_and_runs(digits: Path, tmp_path: Path, workers: int) -> None:
    config = write_config(tmp_path / "c.py", digits, workers)
    config.write_text(config.read_text().replace("checkpoint_every=0.25", "checkpoint_every=None"))
    folder = tmp_path / "cut"
    ready = logged(folder, 4)  # the first epoch ends; validation starts its workers, which takes seconds
    code, said = stopped(command(config, folder), ready, signal.SIGTERM, signal.SIGINT)
    assert (code, "Traceback" in said) == (130, False), said
    state = checkpoint.load(max(folder.glob("step_*.pt")))["training"]
    assert state["step"] >= 4
    assert_resumes_to_the_bit(config, tmp_path / "whole", folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_under_torchrun(digits: Path, tmp_path: Path, number: int) -> None:
    config = write_config(tmp_path / "c.py", digits, workers=1)
    config.write_text(config.read_text().replace("ema=0.9", "ema=0.9, precision='fp32'"))
    folder = tmp_path / "cut"
    given = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given += [str(ROOT / "tools" / "train.py"), str(config), "--work-dir", str(folder)]
    _, said = stopped(given, logged(folder, 3), number)
    assert "stopped after step" in said
    assert "Traceback" not in said.split("torch/distributed")[0]
    steps = read_log(folder / "log.jsonl")[-1]["step"]
    checkpoint.load(folder / f"step_{steps:08d}.pt")
    done = subprocess.run([*given, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (folder / "step_00000016.pt").exists()
