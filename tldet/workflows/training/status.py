"""``status.json`` of a run, for ``tldet watch``: steps, data, warnings, AP by class and reason for the end."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from tldet.errors import DataError, OutputError
from tldet.system.inputs import read_file
from tldet.system.output import write_text

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

STATUS_NAME = "status.json"  # in the folder of a run
MOST_WARNINGS = 100


class _Classes(msgspec.Struct):
    """AP of each class at a step."""

    step: int
    AP: dict[str, float]


class _Status(msgspec.Struct):
    """Values of the file; all are optional."""

    warnings: list[str] | UnsetType = UNSET
    end: str | UnsetType | None = UNSET
    data: list[str] | UnsetType = UNSET
    total_steps: int | UnsetType | None = UNSET
    minutes: float | UnsetType | None = UNSET
    images_per_step: int | UnsetType = UNSET
    device: str | UnsetType = UNSET
    precision: str | UnsetType = UNSET
    host: str | UnsetType = UNSET
    last: _Classes | UnsetType = UNSET
    best: _Classes | UnsetType = UNSET


class RunStatus(logging.Handler):
    """Hook that writes the status of a run at its start, after validations and warnings, and at its end.

    As a context manager, it also records warnings before training begins, and an error that ends the run. A file that
    cannot be written does not end the run.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(logging.WARNING)
        self.path = folder / STATUS_NAME
        self.values: dict[str, Any] = {"warnings": [], "end": None}
        self.validation: Any = None
        self.begun = False

    def __enter__(self) -> RunStatus:
        logging.getLogger("tldet").addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("tldet").removeHandler(self)
        if not isinstance(error, Exception) or not self.begun:
            return
        from tldet import checkpoint  # imported here: reading a status needs no torch

        if checkpoint.steps_in(self.path.parent):
            self._write(end=f"error: {str(error).partition(chr(10))[0] or type(error).__name__}")
        else:  # a failed start leaves no files
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Record a warning."""
        kept: list[str] = self.values["warnings"]
        kept.append(record.getMessage())
        del kept[:-MOST_WARNINGS]
        if self.begun:
            self._write()

    def follow(self, trainer: Trainer, data: Sequence[str], validation: object) -> None:
        """Start to record a run.

        Args:
            trainer: the trainer.
            data: a line about each split.
            validation: the validation; for a detector, its ``result`` has ``per_class`` after each evaluation.
        """
        trainer.hooks.insert(0, self)
        self.validation = validation
        self.values["data"] = list(data)

    def before_train(self, runner: Trainer) -> None:
        """Write the first status; a resumed run keeps its earlier warnings and AP by class."""
        before = read_status(self.path) if runner.state.step else {}
        self.values["warnings"] = [*before.get("warnings", []), *self.values["warnings"]][-MOST_WARNINGS:]
        self.values |= {key: before[key] for key in ("last", "best") if key in before}
        self.begun = runner.world.main
        self._write(
            total_steps=runner.state.total,
            minutes=runner.schedule.minutes,
            images_per_step=runner.images_per_step,
            device=runner.device.type,
            precision=runner.precision.name,
            host=socket.gethostname(),
        )

    def after_train_iter(self, runner: Trainer, **_: Any) -> None:
        """Write the number of steps when it becomes known from the time per step."""
        if self.values["total_steps"] != runner.state.total:
            self._write(total_steps=runner.state.total)

    def after_val(self, runner: Trainer) -> None:
        """Write the AP of each class, of the last and of the best validation."""
        classes = getattr(getattr(self.validation, "result", None), "per_class", {})
        last = {"step": runner.state.step, "AP": {name: value for name, value in classes.items() if value >= 0}}
        best = {"best": last} if runner.state.best_step == runner.state.step else {}
        self._write(last=last, **best)

    def after_run(self, runner: Trainer) -> None:
        """Write the reason for the end of the run."""
        self._write(end=runner.end() or "interrupted")

    def _write(self, **values: Any) -> None:
        self.values |= values
        if self.begun:
            with contextlib.suppress(OutputError):
                write_text(self.path, json.dumps(self.values, ensure_ascii=False, indent=1) + "\n")


def read_status(path: Path) -> dict[str, Any]:
    """Read the status of a run; {} if there is none, or it is damaged."""
    try:
        content = read_file(path, DataError)
        msgspec.json.decode(content, type=_Status)
        found: dict[str, Any] = msgspec.json.decode(content)
    except (DataError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return {}
    return found
