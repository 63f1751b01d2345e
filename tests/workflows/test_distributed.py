"""Several processes train one model: what comes out is what one process with more accumulation gives."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests import forked
from tldet import checkpoint
from tldet.cli.main import main
from tldet.data.dataset import CocoDataset
from tldet.data.index import AnnotationIndex
from tldet.data.loader import BatchOrder, train_batches
from tldet.engine.distributed import process_group
from tldet.engine.logging import read_log
from tldet.errors import ConfigError
from tldet.workflows.training.finetune import finetune

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [
    "data.loader.batch_size=2",
    "data.loader.workers=0",
    "data.train.transforms.0.short=64",
    "data.train.transforms.0.long=96",
    "data.val.transforms.0.short=64",
    "data.val.transforms.0.long=96",
    "optimizer=dict(type='SGD', lr=0.05, momentum=0.9, _delete_=True)",
    "schedule.warmup_steps=0",
    "training.precision=fp32",
    "training.ema=None",
    "training.log_every=1",
    "training.checkpoint_every=0.5",
    "training.max_keep_ckpts=10",
]


def together(command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command run by two processes of torchrun."""
    given = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given += [str(ROOT / "tools" / f"{command}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(given, capture_output=True, text=True, env=environment, check=False)


def forked_together(command: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same, without torchrun: with the environment that it gives each process."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        free.close()
        processes = []
        for rank in ("0", "1"):
            (Path(folder) / rank).mkdir()
            environment = {**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank}
            processes.append(forked.start(["tldet", command, *arguments], Path(folder) / rank, env=environment))
        for process in processes:
            process.join()
        out, err = ("".join(path.read_text() for path in Path(folder).rglob(name)) for name in ("stdout", "stderr"))
    return subprocess.CompletedProcess([command], max(abs(one.exitcode or 0) for one in processes), out, err)


def finetuned(digits: Path, out: Path, launch: Any) -> dict[str, Any]:
    """Four steps of two processes; the last checkpoint."""
    given = ["--data", digits, "--model", "retinanet_lite0", "--steps", "4", "--out", out]
    done = launch("finetune", "--no-report", *given, "--cfg-options", *OPTIONS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("steps in") == 1, "only the main process speaks"
    return checkpoint.load_checkpoint(out / "step_00000004.pt")


@pytest.mark.parametrize("launch", [forked_together, pytest.param(together, marks=pytest.mark.slow)])
def test_two_processes_are_one_with_twice_the_accumulation(digits: Path, tmp_path: Path, launch: Any) -> None:
    both = finetuned(digits, tmp_path / "both", launch)
    options = [*OPTIONS, "training.accumulate=2"]
    finetune(digits, out=tmp_path / "one", model="retinanet_lite0", steps=4, cfg_options=options, report=False)
    one = checkpoint.load_checkpoint(tmp_path / "one" / "step_00000004.pt")
    start = checkpoint.load_checkpoint(tmp_path / "one" / "step_00000002.pt")["model"]
    apart = moved = 0.0
    for name, tensor in one["model"].items():
        if tensor.is_floating_point() and "running" not in name:  # statistics are the main process's own
            apart = max(apart, float((tensor - both["model"][name]).abs().max()))
            moved = max(moved, float((tensor - start[name]).abs().max()))
    assert moved > 1e-3
    assert apart < 0.01 * moved
    losses = [
        [r["loss"] for r in read_log(tmp_path / name / "log.jsonl") if r["type"] == "train"] for name in ("both", "one")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert both["training"]["metrics"].keys() == one["training"]["metrics"].keys()


@pytest.mark.slow
def test_resumed_in_two_processes_is_bit_identical(digits: Path, tmp_path: Path) -> None:
    whole = finetuned(digits, tmp_path / "run", together)
    for path in (tmp_path / "run").glob("*.pt"):
        if path.name > "step_00000002.pt" or path.name == "best.pt":
            path.unlink()
    done = together("finetune", "--no-report", "--out", tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    again = checkpoint.load_checkpoint(tmp_path / "run" / "step_00000004.pt")
    assert all(torch.equal(tensor, again["model"][name]) for name, tensor in whole["model"].items())


def test_errors_are_one_line_of_the_main_process(digits: Path, tmp_path: Path) -> None:
    done = together("finetune", "--data", digits / "none", "--out", tmp_path / "out")
    assert done.returncode != 0
    assert done.stderr.count("Traceback") <= 1, "torchrun's own"
    assert "RuntimeError" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("tldet finetune: error:")]
    assert len(lines) == 1
    assert "no such folder" in lines[0]


def test_an_image_that_one_process_cannot_read_is_named_once(digits: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(digits, tmp_path / "digits")
    order = BatchOrder(CocoDataset(str(broken / "train" / "_annotations.coco.json"), str(broken / "train")).sizes, 2, 0)
    index = AnnotationIndex.load(broken / "train" / "_annotations.coco.json")
    name = index.file_names[order.epoch(0)[3][1]]  # of the second process's second step
    height, width, _ = cv2.imread(str(broken / "train" / name)).shape
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    content = bytearray(cv2.imencode(".png", noise)[1])
    content[len(content) // 2] ^= 255  # header and end are whole, so only decoding finds it
    (broken / "train" / name).write_bytes(content)
    given = ["--data", broken, "--model", "retinanet_lite0", "--steps", "4", "--out", tmp_path / "out"]
    done = together("finetune", "--no-report", *given, "--cfg-options", *OPTIONS)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("tldet finetune: error:")]
    assert name in line
    assert "the run is saved after step 1; fix the data and resume with --resume" in line
    assert [path.name for path in (tmp_path / "out").glob("step_*.pt")] == ["step_00000001.pt"]


def test_processes_take_turns_in_the_batches(digits: Path) -> None:
    data = CocoDataset(str(digits / "train" / "_annotations.coco.json"), str(digits / "train"))
    order = BatchOrder(data.sizes, 4, seed=1)
    ours = [train_batches(data, order, start=7 + rank, every=2) for rank in (0, 1)]
    alone = train_batches(data, order, start=7)
    for number in range(6):
        assert next(ours[number % 2]).image_ids == next(alone).image_ids


def test_started_without_torchrun(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(ConfigError, match=r"WORLD_SIZE is 2 but .*MASTER_ADDR.* start tldet with torchrun"),
        process_group(),
    ):
        pass
    assert main(["models"]) == 2
    assert "runs in a single process; torchrun supports train, finetune, pretrain" in capsys.readouterr().err
