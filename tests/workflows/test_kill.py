"""A real detector's run killed at random moments, during a save too, and resumed: the run left alone, bit for bit."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools import same
from tldet import checkpoint
from tldet.engine.logging import read_log

STEPS, IMAGES, KILLS = 24, 16, 10
CONFIG = """
_base_ = {recipe!r}
model = dict(head=dict(num_classes=10, roi=dict(dropout=0.2)))
data = dict(
    train=dict(type='CocoDataset', annotations={train!r}, images={train_images!r}, transforms=[
        dict(type='Resize', short=[80, 96], long=128),
        dict(type='HorizontalFlip', p=0.5),
        dict(type='ColorJitter', p=0.5)]),
    val=dict(type='CocoDataset', annotations={val!r}, images={val_images!r}, transforms=[
        dict(type='Resize', short=96, long=128)]),
    loader=dict(batch_size=2, eval_batch_size=3, workers={workers}),
)
schedule = dict(steps={steps}, epochs=None, warmup_steps=4)
training = dict(seed=3, accumulate=2, ema=0.9, validate_every=1, checkpoint_every=0.25, max_keep_ckpts=2, log_every=1)
"""


def write_config(path: Path, digits: Path, workers: int) -> Path:
    recipe = Path(__file__).resolve().parents[2] / "configs" / "recipes" / "faster_rcnn_lite0.py"
    parts = {name: digits / split for name, split in (("train", "train"), ("val", "valid"))}
    given = {name: str(folder / "_annotations.coco.json") for name, folder in parts.items()}
    given |= {f"{name}_images": str(folder) for name, folder in parts.items()}
    path.write_text(CONFIG.format(recipe=str(recipe), workers=workers, steps=STEPS, **given))
    return path


def command(config: Path, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "tldet.cli", "train", "--no-report", str(config), "--work-dir", str(folder), *more]


def kill_somewhere(config: Path, folder: Path, number: int, chance: random.Random) -> bool:
    """Start or resume, kill a little later; true when it was alive to be killed."""
    resume = ["--resume"] if any(folder.glob("step_*.pt")) else []
    process = subprocess.Popen(
        command(config, folder, *resume), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    during_save = number % 3 == 2
    log = folder / "log.jsonl"
    lines = len(log.read_bytes().splitlines()) if log.exists() else 0
    while process.poll() is None:
        if during_save and any(folder.glob(".*.tmp")):
            break
        if not during_save and log.exists() and len(log.read_bytes().splitlines()) > lines:
            time.sleep(chance.random() * 0.6)
            break
        time.sleep(0.0005)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    _, err = process.communicate()
    assert alive or process.returncode == 0, err.decode()
    return alive


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_kills(digits: Path, tmp_path: Path, workers: int) -> None:
    config = write_config(tmp_path / "c.py", digits, workers)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(config, whole), check=True, capture_output=True)
    killed.mkdir()
    chance = random.Random(workers)
    kills = 0
    for number in range(2 * KILLS):
        kills += kill_somewhere(config, killed, number, chance)
        if kills == KILLS:
            break
    resume = ["--resume"] if any(killed.glob("step_*.pt")) else []
    subprocess.run(command(config, killed, *resume), check=True, capture_output=True)
    assert kills == KILLS
    for name in (f"step_{STEPS:08d}.pt", "best.pt"):
        ours, theirs = checkpoint.load_checkpoint(whole / name), checkpoint.load_checkpoint(killed / name)
        for state in (ours, theirs):
            if state["training"]:
                state["training"].pop("seconds")
        assert [key for key in ours if not same(ours[key], theirs[key])] == []
    logs = [[{k: v for k, v in r.items() if k != "time"} for r in read_log(f / "log.jsonl")] for f in (whole, killed)]
    drop = {"seconds", "images_per_second"}
    assert [{k: v for k, v in r.items() if k not in drop} for r in logs[0]] == [
        {k: v for k, v in r.items() if k not in drop} for r in logs[1]
    ]
    assert not list(killed.glob(".*.tmp")), "what a kill left half written is cleared away"


@pytest.mark.slow
def test_a_full_disk_loses_no_checkpoint(digits: Path, tmp_path: Path) -> None:
    """A tmpfs that holds one checkpoint and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=180m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        config = write_config(tmp_path / "c.py", digits, 0)
        filler = disk / "filler"
        filler.write_bytes(b"x" * 60_000_000)
        done = subprocess.run(command(config, disk / "run"), capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert (
            "(No space left on device); free some disk space; earlier files are unchanged"
            in done.stderr.splitlines()[-1]
        )
        kept = sorted((disk / "run").glob("step_*.pt"))
        assert kept
        checkpoint.load_checkpoint(kept[-1])
        assert not list((disk / "run").glob(".*.tmp"))
        filler.unlink()
        whole = tmp_path / "elsewhere"
        shutil.copytree(disk / "run", whole)
        subprocess.run(command(config, whole, "--resume"), check=True, capture_output=True)
        assert (whole / f"step_{STEPS:08d}.pt").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=False)
