"""State of a run, read from the files in its output directory."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.engine.logging import LOG_NAME, parse_log
from tldet.engine.progress import duration
from tldet.errors import DataError
from tldet.system.inputs import exists, is_folder, read_file
from tldet.system.locks import in_use
from tldet.workflows.training.status import STATUS_NAME, read_status

_FILES = (LOG_NAME, STATUS_NAME, "config.py")  # at least one is in the folder of a run that has started
_RECENT = 10  # training records that determine the speed
_LISTED = 5  # runs listed in a message
_STALE = 600.0  # seconds without a new record, after which a run on another machine may have ended
_ENDS = {"finished": "finished", "interrupted": "stopped; --resume continues the run"}


@dataclass(frozen=True)
class RunState:
    """State of a run.

    Attributes:
        folder: folder of the run.
        records: records of its log.
        problem: description of a damaged line of the log; empty without one.
        status: content of ``status.json``; {} if there is none.
        active: True if a process uses the folder; None (unknown) for a run on another machine.
        age: seconds since the last write to the log.
    """

    folder: Path
    records: Sequence[Mapping[str, Any]] = ()
    problem: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    active: bool | None = False
    age: float = 0.0

    @property
    def train(self) -> list[Mapping[str, Any]]:
        """Records of training."""
        return [record for record in self.records if record["type"] == "train"]

    @property
    def validations(self) -> list[Mapping[str, Any]]:
        """Records of validations."""
        return [record for record in self.records if record["type"] == "val"]

    @property
    def step(self) -> int:
        """Last step in the log."""
        return max((record["step"] for record in self.records), default=0)

    @property
    def total(self) -> int | None:
        """Number of steps of the run; None if it is unknown."""
        return self.status.get("total_steps")

    @property
    def ended(self) -> bool:
        """True if no further log records are expected."""
        if self.active:
            return False
        return self.active is False or bool(self.status.get("end"))

    @property
    def text(self) -> str:
        """Description of the state."""
        end = self.status.get("end")
        if self.active and not end:
            return "running" if self.records or self.status else "starting"
        if self.active:
            return "being resumed, or writing its report"
        if self.active is None and not end:
            source = f"host {self.status.get('host')}, last log record {duration(self.age)} ago"
            return f"running ({source})" if self.age < _STALE else f"probably not running ({source})"
        if end:
            return _ENDS.get(end, end if end.startswith("error") else f"ended early: {end}")
        if not self.status:
            return f"not running; step {self.step}" if self.records else "not started"
        return f"killed after step {self.step}; --resume continues the run"

    @property
    def seconds_per_step(self) -> float | None:
        """Mean time per step over the last records; None if it is unknown."""
        recent = self.train[-_RECENT:]
        if not recent or "seconds" not in recent[-1]["time"]:
            return None
        steps, seconds = recent[-1]["step"], recent[-1]["time"]["seconds"]
        if len(recent) > 1:
            steps, seconds = steps - recent[0]["step"], seconds - recent[0]["time"].get("seconds", 0.0)
        return seconds / steps if steps > 0 and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Training time left, without validations; None if it is unknown."""
        if self.total is None or self.seconds_per_step is None:
            return None
        return max(self.total - self.step, 0) * self.seconds_per_step


def read_run_state(folder: Path) -> RunState:
    """Read the state of a run.

    Raises:
        DataError: the folder does not exist, or is not the output directory of a run.
    """
    if not is_folder(folder):
        what = "is a file; use its folder" if exists(folder) else "no such folder"
        raise DataError(f"{folder}: {what}")
    active: bool | None = in_use(folder)
    if not active and not any(exists(folder / name) for name in _FILES):
        inside = sorted(path.parent for pattern in ("*", "runs/*") for path in folder.glob(f"{pattern}/{LOG_NAME}"))
        runs = ", ".join(str(path) for path in inside[:_LISTED]) + (", ..." if len(inside) > _LISTED else "")
        advice = f"; it contains the runs {runs}" if inside else ""
        raise DataError(f"{folder}: is not the folder of a run (no {LOG_NAME}){advice}")
    log, status = folder / LOG_NAME, read_status(folder / STATUS_NAME)
    content, age = b"", 0.0
    if exists(log):
        content = read_file(log, DataError)
        with contextlib.suppress(OSError):
            age = time.time() - log.stat().st_mtime
    records, problem = parse_log(content)
    if not active and status.get("host") not in (None, socket.gethostname()):
        active = None  # locks of other machines are not visible on all file systems
    return RunState(folder, [record for _, record in records], problem, status, active, max(age, 0.0))
