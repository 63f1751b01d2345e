"""The training loop (signature; the body follows)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from tldet.engine.precision import Precision
from tldet.engine.progress import Reporter
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.settings import TrainSettings


@dataclass(frozen=True)
class TrainResult:
    """What came out: the last step, the best metric and where, the last validation, seconds of training time."""

    step: int
    best: float | None
    best_step: int | None
    metrics: dict[str, float]
    seconds: float
    reason: str  # "finished", "no gain" or what a hook said
    checkpoint: Path
    best_checkpoint: Path | None


class Trainer:
    """``Trainer(...).run(resume=False) -> TrainResult``."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        batches: Callable[[int], Iterator[Any]],
        evaluate: Callable[[nn.Module], Mapping[str, float]] | None,
        schedule: ScheduleSettings,
        settings: TrainSettings,
        work_dir: str | Path,
        *,
        steps_per_epoch: float,
        batch_size: int,
        precision: Precision | None = None,
        reporter: Reporter | None = None,
        config: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        hooks: Sequence[Any] = (),
        clock: Callable[[], float] | None = None,
    ) -> None: ...

    def run(self, *, resume: bool = False) -> TrainResult: ...
