"""``log.jsonl``: one JSON object per line, the same in a resumed run as in an uninterrupted one except for ``time``."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from tldet.engine.progress import Reporter
from tldet.engine.state import TrainState
from tldet.engine.step import StepResult
from tldet.errors import OutputError
from tldet.system.inputs import exists, read_file
from tldet.system.memory import device_peak_mb
from tldet.system.output import naming, write_bytes

log = logging.getLogger(__name__)
LOG_NAME = "log.jsonl"  # in a run's folder


class JsonLog:
    """Appends records; every field that depends on the clock or the machine lies in a record's ``time``.

    Args:
        path: the file.
        quiet: write nothing, as in a process beside the main one.

    Raises:
        OutputError: (from every method) the file cannot be written.
    """

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self.path, self.quiet = path, quiet

    def cut(self, step: int, *, unmeasured: bool = False) -> None:
        """Keep the records up to ``step`` and before the first damaged line; the others are removed.

        Args:
            step: the last step that was taken.
            unmeasured: its validation will be repeated, so its record is removed too.
        """
        if self.quiet:
            return
        kept = b""
        content = read_file(self.path, OutputError) if exists(self.path) else b""
        for line, record in _records(content, self.path):
            if record["step"] > step or (unmeasured and record["step"] == step and record["type"] == "val"):
                break
            kept += line
        write_bytes(self.path, kept)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; numbers that are not finite become null."""
        if self.quiet:
            return
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(record), allow_nan=False) + "\n")

    def sync(self) -> None:
        """Push what was written to the disk, before a checkpoint that relies on it."""
        if self.path.exists() and not self.quiet:
            with naming(self.path), self.path.open("rb+") as file:
                os.fsync(file.fileno())


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read the records of a ``log.jsonl`` up to its end or the first damaged line."""
    path = Path(path)
    return [record for _, record in _records(path.read_bytes(), path)]


def _records(content: bytes, path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield each line with its record; stop at a damaged line with a warning, and at a half-written last line."""
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        if record is None:
            if number < len(lines) or line.endswith(b"\n"):
                text = "%s: line %d is damaged; this line and %d after it are ignored"
                log.warning(text, path, number, len(lines) - number)
            return
        yield line, record


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int or not {"type", "time"} <= record.keys():
        return None
    numbers = (value for key, value in record.items() if key not in ("type", "time"))
    return record if all(value is None or isinstance(value, (int, float)) for value in numbers) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class LogWriter:
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
