"""A tiny run with everything that can make a resumed one differ; as a script, one that is killed again and again.

``python toy_run.py FOLDER WORKERS KILLS SEED`` trains FOLDER/whole undisturbed and FOLDER/killed under SIGKILL at
random moments (each third one in the middle of writing a checkpoint), resuming each time. torch is imported once; every
run is a fork of this process.
"""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten
from torch.utils.data import DataLoader, Dataset

from tldet import checkpoint
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.state import TrainSettings
from tldet.engine.trainer import Trainer
from tldet.models.losses import LossNormalizers

PER_EPOCH = 10  # micro-batches
LEAST = 10  # kills that a run must survive, or as many as it gets, if these are fewer


@dataclass
class ToyBatch:
    images: Tensor
    labels: Tensor
    image_ids: list[int]
    seed: int = 0

    def to(self, device: torch.device) -> ToyBatch:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


class ToyBatches(Dataset):
    """Micro-batch ``n`` as a pure function of ``n``."""

    def __init__(self, start: int = 0, delay: float = 0.0) -> None:
        self.start = start
        self.delay = delay

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, n: int) -> ToyBatch:
        time.sleep(self.delay)
        torch.rand(3)  # loading may draw from the global generator; nothing may depend on it
        generator = torch.Generator().manual_seed(self.start + n)
        labels = torch.randint(0, 4, (6,), generator=generator)
        images = torch.randn(6, 1, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
        return ToyBatch(images, labels, list(range((self.start + n) * 6, (self.start + n) * 6 + 6)))


def toy_batches(start: int, workers: int = 0, delay: float = 0.0) -> Iterator[ToyBatch]:
    return iter(DataLoader(ToyBatches(start, delay), batch_size=None, num_workers=workers))


class ToyModel(nn.Module):
    """Convolution, batch norm, dropout, a seeded draw, indexing with repeated indices, and a loss normalizer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.3)
        self.table = nn.Parameter(torch.randn(5, 8))
        self.fc = nn.Linear(8, 4)
        self.normalizers = LossNormalizers("running", positives=4.0)

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        logits = self.logits(batch.images, batch.seed)
        spread = (logits.logsumexp(1) ** 2).sum()
        count = self.normalizers.divisor("positives", (batch.labels > 0).sum(), len(batch.labels))
        return {"loss_cls": nn.functional.cross_entropy(logits, batch.labels), "loss_reg": 0.01 * spread / count}

    def logits(self, images: Tensor, seed: int = 0) -> Tensor:
        x = self.drop(self.norm(self.conv(images)).relu()).mean((2, 3))
        picks = torch.randint(0, 5, (len(x), 40), generator=torch.Generator().manual_seed(seed))
        return self.fc(x + self.table[picks].mean(1))


def evaluate(model: Any) -> dict[str, float]:
    assert not model.training
    batch = ToyBatches()[999_000]
    logits = model.logits(batch.images)
    loss = nn.functional.cross_entropy(logits, batch.labels)
    return {"AP": float(-loss), "val_loss": float(loss)}


def build(folder: str | Path, workers: int = 0, delay: float = 0.0, **changes: Any) -> Trainer:
    """A trainer; ``changes`` go to the constructor, to the schedule or to the settings, whichever has the name."""
    torch.manual_seed(0)
    model = changes.pop("model", None) or ToyModel()
    schedule = {"epochs": 8, "warmup_steps": 5, "warmup_factor": 0.1}
    settings = {
        "accumulate": 2,
        "ema": 0.95,
        "clip_norm": 1.0,
        "validate_every": 1.0,
        "checkpoint_every": 0.6,
        "log_every": 4,
    }
    arguments: dict[str, Any] = {"evaluate": evaluate, "batches": lambda start: toy_batches(start, workers, delay)}
    if {"steps", "minutes"} & set(changes):
        del schedule["epochs"]
    for name, value in changes.items():
        home = next(
            (d for d, t in ((schedule, ScheduleSettings), (settings, TrainSettings)) if hasattr(t, name)), arguments
        )
        home[name] = value
    optimizer = arguments.pop("optimizer", None) or torch.optim.AdamW(model.parameters(), lr=0.01)
    return Trainer(
        model,
        optimizer,
        schedule=ScheduleSettings(**schedule),
        settings=TrainSettings(**settings),
        work_dir=folder,
        steps_per_epoch=PER_EPOCH / settings["accumulate"],
        batch_size=6,
        **arguments,
    )


class Stop:
    """A hook that ends the run, saved, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_train_iter(self, runner: Trainer, batch_idx: int, **_: Any) -> None:
        if batch_idx + 1 == self.step:
            runner.stop("requested by the test")


def last(folder: Path, step: int) -> list[Any]:
    """All that the checkpoint of a step holds but for the time it took, tensors as bytes: equal or not to the bit."""
    state = checkpoint.load_checkpoint(folder / f"step_{step:08d}.pt")
    state["training"].pop("seconds")
    leaves, shape = tree_flatten(state)
    return [shape, *(one.numpy().tobytes() if isinstance(one, Tensor) else one for one in leaves)]


class Dying:
    """A hook that kills the process and its workers so many seconds after training begins, wherever they are then.

    The clock runs in the process itself: where the machine stands still, so do both.
    """

    def __init__(self, seconds: float) -> None:
        self.timer = threading.Timer(seconds, os.killpg, (0, signal.SIGKILL))
        self.timer.daemon = True

    def before_train(self, runner: Any) -> None:
        self.timer.start()

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_more: None


def _trained_child(folder: Path, workers: int, *, die_after: float | None = None, die_saving: bool = False) -> int:
    """Fork a process that trains in ``folder``, resuming where there is something; returns how it ended."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    code = 1
    try:
        os.setpgid(0, 0)
        torch.set_num_threads(1)
        if die_saving:
            torch.save = _write_half  # the next checkpoint dies half written
        hooks = [] if die_after is None else [Dying(die_after)]
        build(folder, workers, delay=0.004, hooks=hooks).run(resume=any(folder.glob("step_*.pt")))
        code = 0
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _write_half(_state: Any, file: Any, *_args: Any, **_more: Any) -> None:
    if hasattr(file, "write"):
        file.write(b"PK\x03\x04 half of it")
        file.flush()
    else:
        Path(file).write_bytes(b"PK\x03\x04 half of it")
    os.killpg(0, signal.SIGKILL)


def main(folder: Path, workers: int, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    importlib.import_module("torch._dynamo")  # what the first optimizer step imports, once for all forks
    assert _trained_child(folder / "whole", workers) == 0
    for attempt in range(10):  # a machine that has become faster ends the run before it is killed often enough
        shutil.rmtree(folder / "killed", ignore_errors=True)
        steps = _killed_again_and_again(folder / "killed", workers, kills, max(2.0 / kills, 0.2) / 2**attempt, chance)
        if len(steps) >= min(LEAST, kills):
            break
    sys.stdout.write(f"killed {len(steps)} times, resumed after steps {steps}\n")


def _killed_again_and_again(folder: Path, workers: int, kills: int, longest: float, chance: random.Random) -> list[int]:
    """Train to the end in spite of so many kills, if it lives for them; returns the step each of them left."""
    steps: list[int] = []
    while True:
        saving = len(steps) < kills and len(steps) % 3 == 2
        moment = chance.uniform(0.0, longest) if len(steps) < kills and not saving else None
        status = _trained_child(folder, workers, die_after=moment, die_saving=saving)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "a run failed"
            return steps
        found = checkpoint.newest_readable(folder) if folder.exists() else None
        steps.append(found[1]["training"]["step"] if found else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
