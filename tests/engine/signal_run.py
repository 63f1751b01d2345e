"""A run with real loader workers, and with several processes, whose whole process group is signalled.

``python signal_run.py FOLDER IMAGES SIZE WORKERS MOMENT SIGNAL`` trains FOLDER/cut in SIZE processes with WORKERS each,
sends SIGNAL to all of them at the MOMENT "train" or "validate", resumes the run, and compares it with FOLDER/whole,
which nothing interrupted. torch is imported once; every process of a run is a fork of this one.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tldet import checkpoint
from tldet.data.dataset import CocoDataset
from tldet.data.eval_batches import eval_batches
from tldet.data.loader import BatchOrder, train_batches
from tldet.engine.distributed import process_group
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.state import TrainSettings
from tldet.engine.trainer import Trainer
from tldet.system.signals import SAME_REQUEST

STEPS = 8
PAUSE = 0.25  # seconds per batch of the run that is signalled: a step must not end before the signal arrives
BEGUN = "validating"  # a file in the run's folder, once a validation has begun


class Tiny(nn.Module):
    """A model that trains on batches of images, and pauses for some seconds on each."""

    def __init__(self, pause: float) -> None:
        super().__init__()
        self.conv, self.pause = nn.Conv2d(3, 4, 3), pause

    def forward(self, batch: Any) -> dict[str, Tensor]:
        time.sleep(self.pause)
        return {"loss": (self.conv(batch.images.float() / 255).mean((2, 3)) - 1).square().mean()}


def train(folder: Path, images: Path, workers: int, *, resume: bool, pause: float = 0.0) -> None:
    """One process of a run."""
    data = CocoDataset(str(images / "_annotations.coco.json"), str(images))
    order = BatchOrder(data.sizes, 2)
    torch.manual_seed(0)
    model = Tiny(pause)

    def evaluate(model: Any) -> dict[str, float]:
        (folder / BEGUN).touch()
        losses = [float(model(batch)["loss"]) for batch in eval_batches(data, 2, workers=workers)]
        return {"AP": -sum(losses)}

    with process_group() as world:

        def batches(start: int) -> Any:
            return train_batches(data, order, start=start * world.size + world.rank, every=world.size, workers=workers)

        trainer = Trainer(
            model,
            torch.optim.AdamW(model.parameters(), lr=0.01),
            batches,
            evaluate,
            ScheduleSettings(steps=STEPS, warmup_steps=0),
            TrainSettings(validate_every=1.0, checkpoint_every=None, log_every=1),
            folder,
            steps_per_epoch=STEPS / 2,
            batch_size=2,
            world=world,
        )
        trainer.run(resume=resume)


def started(size: int, call: Callable[[], None]) -> list[int]:
    """Fork the processes of a run, in a process group of their own; returns their ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children: list[int] = []
    for rank in range(size):
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setpgid(0, children[0] if children else 0)
                torch.set_num_threads(1)
                os.environ.update(WORLD_SIZE=str(size), RANK=str(rank), LOCAL_RANK=str(rank), MASTER_PORT=str(port))
                os.environ.update(MASTER_ADDR="127.0.0.1")
                call()
                code = 0
            except KeyboardInterrupt as stop:
                sys.stdout.write(f"{stop}\n")
                sys.stdout.flush()
                code = 130
            finally:
                os._exit(code)
        children.append(child)
        time.sleep(0.05)  # the first one makes the group
    return children


def codes(children: list[int]) -> list[int]:
    """Wait for processes; returns how they ended."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main(folder: Path, images: Path, size: int, workers: int, moment: str, number: int) -> None:
    whole, cut = folder / "whole", folder / "cut"
    assert codes(started(size, lambda: train(whole, images, 0, resume=False))) == [0] * size
    children = started(size, lambda: train(cut, images, workers, resume=False, pause=PAUSE))
    log, start = cut / "log.jsonl", time.monotonic()
    while not ((cut / BEGUN).exists() if moment == "validate" else log.exists() and log.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() - start < 300, "the run does not begin"
        time.sleep(0.001)
    first = time.monotonic()
    os.killpg(children[0], number)
    time.sleep(0.1)
    os.killpg(children[0], number)  # as torchrun sends it on
    if time.monotonic() - first > 0.8 * SAME_REQUEST:
        sys.exit("the machine is too busy: the two signals are not one request")
    assert codes(children) == [130] * size
    state = checkpoint.load_checkpoint(max(cut.glob("step_*.pt")))["training"]
    assert state["validation_pending"] == (moment == "validate")
    assert codes(started(size, lambda: train(cut, images, 0, resume=True))) == [0] * size
    ours, theirs = (checkpoint.load_checkpoint(one / f"step_{STEPS:08d}.pt") for one in (whole, cut))
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    assert ours["training"]["metrics"] == theirs["training"]["metrics"]
    sys.stdout.write(f"saved after step {state['step']}\n")


if __name__ == "__main__":
    importlib.import_module("torch._dynamo")  # what the first optimizer step imports, once for all forks
    given = sys.argv[1:]
    main(Path(given[0]), Path(given[1]), int(given[2]), int(given[3]), given[4], getattr(signal, given[5]))
