"""``log.jsonl``: one JSON object per line, equal in a resumed and an uninterrupted run except for ``time``."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.engine.progress import Reporter
from tldet.errors import DataError, OutputError
from tldet.system.inputs import exists, read_file
from tldet.system.memory import device_peak_mb
from tldet.system.output import naming, write_bytes

if TYPE_CHECKING:  # reading a log needs no torch
    from tldet.engine.state import TrainState
    from tldet.engine.step import StepResult

log = logging.getLogger(__name__)
LOG_NAME = "log.jsonl"  # in the output directory


class JsonLog:
    """Log file of records; the fields of a record that depend on the clock or the machine are in its ``time``.

    Args:
        path: the file.
        quiet: write nothing, as in processes other than the main one.

    Raises:
        OutputError: from all methods: the file cannot be written.
    """

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self.path, self.quiet = path, quiet

    def cut(self, step: int, *, validation_pending: bool = False) -> None:
        """Remove the records after ``step`` and those from the first damaged line on.

        Args:
            step: number of steps taken.
            validation_pending: the validation after this step will be repeated, so its record is removed too.
        """
        if self.quiet:
            return
        kept = b""
        content = read_file(self.path, OutputError) if exists(self.path) else b""
        for line, record in _records(content, self.path):
            if record["step"] > step or (validation_pending and record["step"] == step and record["type"] == "val"):
                break
            kept += line
        write_bytes(self.path, kept)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record; non-finite numbers become null."""
        if self.quiet:
            return
        with naming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(record), allow_nan=False) + "\n")

    def sync(self) -> None:
        """Flush the file to the disk, before a checkpoint is written."""
        if self.path.exists() and not self.quiet:
            with naming(self.path), self.path.open("rb+") as file:
                os.fsync(file.fileno())


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Read the records of a ``log.jsonl`` up to its end or the first damaged line.

    Raises:
        DataError: the file cannot be read.
    """
    path = Path(path)
    return [record for _, record in _records(read_file(path, DataError), path)]


def parse_log(content: bytes) -> tuple[list[tuple[bytes, dict[str, Any]]], str]:
    """Parse a ``log.jsonl``.

    Returns:
        Each line with its record, up to the end, an incomplete last line or the first damaged line; and the problem
        with a damaged line, "" without one.
    """
    lines = content.splitlines(keepends=True)
    found: list[tuple[bytes, dict[str, Any]]] = []
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        if record is None:
            incomplete = number == len(lines) and not line.endswith(b"\n")
            after = len(lines) - number
            return found, "" if incomplete else f"line {number} is damaged; this line and {after} after it are ignored"
        found.append((line, record))
    return found, ""


def _records(content: bytes, path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Return each line with its record, and log a problem."""
    found, problem = parse_log(content)
    if problem:
        log.warning("%s: %s", path, problem)
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or record.get("type") not in ("train", "val"):
        return None
    step, best_step, times = record.get("step"), record.get("best_step"), record.get("time")
    if not (_is_count(step) and isinstance(times, dict) and (_is_count(best_step) or record.get("best") is None)):
        return None
    numbers = [value for key, value in record.items() if key not in ("type", "time") and value is not None]
    numbers += [value for key, value in times.items() if key != "at"]
    return record if all(map(_is_number, numbers)) else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    """Return True for a number as :meth:`JsonLog.write` writes it: finite, of at most 64 bits."""
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, int) and abs(value) < 2**63


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class LogWriter:
    """Writer that averages values over steps, writes lines of the log and calls the reporter.

    Args:
        log: the log.
        reporter: shows progress.
        steps_per_epoch: optimizer steps per epoch.
    """

    def __init__(self, log: JsonLog, reporter: Reporter, steps_per_epoch: float) -> None:
        self.log = log
        self._reporter = reporter
        self._steps_per_epoch = steps_per_epoch
        self._images, self._seconds = 0, 0.0

    def step(self, state: TrainState, result: StepResult, lr: float, images: int, seconds: float) -> None:
        """Add the losses and the learning rate of a step to the next line."""
        import torch

        self._images, self._seconds = self._images + images, self._seconds + seconds
        host = {"loss": torch.tensor(result.loss), "grad_norm": torch.tensor(result.norm)}
        state.window.add({**result.parts, **host})
        state.lr = lr
        self._reporter.step(state.step, state.total, loss=result.loss, lr=lr, images=images, seconds=seconds)

    def window(self, state: TrainState) -> None:
        """Write a line with the means over the steps since the last line."""
        speed = self._images / max(self._seconds, 1e-9)
        self._images, self._seconds = 0, 0.0
        times = {"seconds": round(state.seconds, 3), "images_per_second": round(speed, 3)}
        times["peak_mb"] = round(device_peak_mb(), 1)  # depends on the machine
        self._write("train", state, {"lr": state.lr, **state.window.take()}, times)

    def validation(self, state: TrainState, seconds: float) -> None:
        """Write a line with the metrics of a validation that took ``seconds``."""
        best = {"best": state.best, "best_step": state.best_step}
        self._write("val", state, {**state.metrics, **best}, {"evaluation_seconds": round(seconds, 3)})

    def _write(self, kind: str, state: TrainState, values: dict[str, Any], times: dict[str, Any]) -> None:
        epoch = round(state.step / self._steps_per_epoch, 4)
        times["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        record = {"type": kind, "step": state.step, "epoch": epoch, **values, "time": times}
        self.log.write(record)
        self._reporter.record(record)
