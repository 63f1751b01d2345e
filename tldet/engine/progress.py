"""What a person sees while training: the trainer reports, a :class:`Reporter` shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Reporter:
    """Shows nothing; what the trainer calls."""

    def start(self, step: int, total: int | None) -> None:
        """Training begins after ``step`` steps."""

    def step(self, step: int, total: int | None, *, loss: float, lr: float, images: int, seconds: float) -> None:
        """One optimizer step over ``images`` pictures took ``seconds``, loading included."""

    def record(self, record: Mapping[str, Any]) -> None:
        """A line of the log was written."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """Training is over, well or badly."""


class ConsoleReporter(Reporter):
    """A progress bar in a terminal; elsewhere a line every so often.

    Args:
        console: where to.
        shown: metrics that are printed after a validation; all of them when None.
        interval: seconds between lines where there is no terminal.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        console: Console,
        shown: Sequence[str] | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._shown = shown
        self._interval = interval
        self._clock = clock
        self._bar: Progress | None = None
        self._last_line = -float("inf")
        self._seconds = 0.0  # of a step, smoothed

    def start(self, step: int, total: int | None) -> None:
        """Begin the bar."""
        self._last_line = self._clock()
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("training"), BarColumn(bar_width=30), TextColumn("{task.fields[line]}"))
        self._bar = Progress(*columns, console=self._console)
        self._bar.add_task("training", total=total, completed=step, line=f"step {step}")
        self._bar.start()

    def step(self, step: int, total: int | None, *, loss: float, lr: float, images: int, seconds: float) -> None:
        """Move the bar, or print a line when the last one is old enough."""
        self._seconds = 0.9 * self._seconds + 0.1 * seconds if self._seconds else seconds
        due = self._clock() - self._last_line >= self._interval or step == total
        if self._bar is None and not due:
            return
        rate = images / max(self._seconds, 1e-9)
        left = "measuring speed" if total is None else f"eta {duration((total - step) * self._seconds)}"
        line = f"step {step}/{total or '?'}  loss {loss:.3f}  lr {lr:.2e}  {rate:.1f} images/s  {left}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, total=total, line=line)
        else:
            self._last_line = self._clock()
            self._print(line)

    def record(self, record: Mapping[str, Any]) -> None:
        """Print the metrics of a validation."""
        if record["type"] == "val":
            skipped = ("type", "step", "epoch", "best", "best_step", "time")
            names = [name for name in record if name not in skipped] if self._shown is None else self._shown
            shown = [f"{name} {record[name]:.4g}" for name in names if record.get(name) is not None]
            best = "" if record.get("best") is None else f" (best {record['best']:.4g} at step {record['best_step']})"
            self._print(f"validation at step {record['step']}: {', '.join(shown)}{best}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._print(text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            with suppress(OSError, SystemExit):
                self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        with suppress(OSError, SystemExit):  # a closed terminal or pipe (rich would exit) does not end training
            self._console.print(text, markup=False, highlight=False)


def duration(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
