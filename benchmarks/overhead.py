"""Overhead of the trainer, compared with a bare loop over the same batches with the same small detector."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Row
from benchmarks.suites import Bench
from tldet.config import read_config
from tldet.engine.progress import Reporter
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.state import TrainSettings
from tldet.engine.trainer import Trainer
from tldet.models.detector import Detector, build_detector
from tldet.models.surgery.frozen_norms import fold_frozen_norms
from tldet.system.determinism import deterministic

RECIPE, SIZE, COUNT = "retinanet_lite0", (96, 128), 2
STEPS, QUICK_STEPS = 20, 4
SKIPPED = 2  # first steps of a run
CLIP = 10.0  # as in the recipes


class Stamps(Reporter):
    """Reporter that records the time of each step."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def step(self, *_: Any, **__: Any) -> None:
        """Record the end of a step."""
        self.at.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the median seconds per step, without the first steps."""
        gaps = sorted(b - a for a, b in itertools.pairwise(self.at[SKIPPED:]))
        return gaps[len(gaps) // 2]


def trainer_row(bench: Bench) -> Row:
    """Compare steps of the trainer and of a bare loop, both with deterministic algorithms and gradient clipping."""
    from benchmarks.train import make_batch

    model = build_detector(read_config(RECIPE)["model"])
    fold_frozen_norms(model.backbone.freeze())  # type: ignore[operator]
    batch = make_batch(SIZE, COUNT)
    steps = SKIPPED + (QUICK_STEPS if bench.quick else STEPS)
    folders = (bench.folder / f"overhead_{number}" for number in itertools.count())
    comparison = bench.compare(
        "trainer, bare loop",
        lambda: _trained(model, batch, steps, next(folders)),
        lambda: _bare(model, batch, steps),
        8,
        self_timed=True,
    )
    overhead = comparison.ours.median - comparison.theirs.median
    each = f"step of {RECIPE}, {COUNT}x{SIZE[0]}x{SIZE[1]}"
    return Row("trainer", "a bare loop", comparison, each, checks={"overhead per step in ms": 1e3 * overhead})


def _optimizer(model: Detector) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-9, 0.9)


def _trained(model: Detector, batch: Any, steps: int, folder: Path) -> float:
    stamps = Stamps()
    settings = TrainSettings(validate_every=None, checkpoint_every=None, log_every=50, precision="fp32", clip_norm=CLIP)
    Trainer(
        model,
        _optimizer(model),
        lambda _: itertools.repeat(batch),
        None,
        ScheduleSettings(steps=steps, warmup_steps=0, policy="constant"),
        settings,
        folder,
        steps_per_epoch=float(steps),
        batch_size=COUNT,
        reporter=stamps,
    ).run()
    return stamps.seconds()


def _bare(model: Detector, batch: Any, steps: int) -> float:
    stamps, optimizer = Stamps(), _optimizer(model)
    model.train()
    with deterministic(torch.device("cpu")):
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = torch.stack(list(model(batch).values())).sum()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            stamps.step()
    return stamps.seconds()
