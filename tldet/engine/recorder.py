"""What a run writes down about its steps and validations."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import torch

from tldet.engine.log import JsonLog
from tldet.engine.memory import device_peak_mb
from tldet.engine.progress import Reporter
from tldet.engine.state import TrainState
from tldet.engine.step import StepResult


class Recorder:
    """Keeps the log's window, writes its lines and tells the reporter.

    Args:
        log: where lines go.
        reporter: what a person sees.
        steps_per_epoch: optimizer steps an epoch.
    """

    def __init__(self, log: JsonLog, reporter: Reporter, steps_per_epoch: float) -> None:
        self.log = log
        self._reporter = reporter
        self._steps_per_epoch = steps_per_epoch
        self._images, self._seconds = 0, 0.0

    def step(self, state: TrainState, result: StepResult, lr: float, images: int, seconds: float) -> None:
        """Count a step: means of the losses since the last line go into that line, the last learning rate too."""
        self._images, self._seconds = self._images + images, self._seconds + seconds
        host = {"loss": torch.tensor(result.loss), "grad_norm": torch.tensor(result.norm)}
        state.window.add({**result.parts, **host})
        state.lr = lr
        self._reporter.step(state.step, state.total, loss=result.loss, lr=lr, images=images, seconds=seconds)

    def window(self, state: TrainState) -> None:
        """Write the line of the steps since the last one."""
        speed = self._images / max(self._seconds, 1e-9)
        self._images, self._seconds = 0, 0.0
        times = {"seconds": round(state.seconds, 3), "images_per_second": round(speed, 3)}
        times["peak_mb"] = round(device_peak_mb(), 1)  # as little the run's own as the clock is
        self._write("train", state, {"lr": state.lr, **state.window.take()}, times)

    def validation(self, state: TrainState, seconds: float) -> None:
        """Write the line of a validation that took ``seconds``."""
        best = {"best": state.best, "best_step": state.best_step}
        self._write("val", state, {**state.metrics, **best}, {"evaluation_seconds": round(seconds, 3)})

    def _write(self, kind: str, state: TrainState, values: dict[str, Any], times: dict[str, Any]) -> None:
        epoch = round(state.step / self._steps_per_epoch, 4)
        times["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = {"type": kind, "step": state.step, "epoch": epoch, **values, "time": times}
        self.log.write(record)
        self._reporter.record(record)
