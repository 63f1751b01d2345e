"""Progress of training on the console or in a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tldet.system.progress import notebook_display

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class Reporter:
    """Base class of reporters, which the trainer calls; shows nothing."""

    def start(self, step: int, total: int | None) -> None:
        """Report the start of training after ``step`` steps."""

    def step(self, step: int, total: int | None, *, loss: float, lr: float, images: int, seconds: float) -> None:
        """Report an optimizer step on ``images`` images that took ``seconds``, including loading."""

    def record(self, record: Mapping[str, Any]) -> None:
        """Report a line of the log."""

    def show(self, text: str) -> None:
        """Report a message."""

    def close(self) -> None:
        """End the report, also after an error."""


class Reporters(Reporter):
    """Calls several reporters.

    Args:
        several: the reporters.
    """

    def __init__(self, several: Sequence[Reporter]) -> None:
        self.several = list(several)

    def start(self, step: int, total: int | None) -> None:
        """Report the first step to all reporters."""
        for one in self.several:
            one.start(step, total)

    def step(self, step: int, total: int | None, *, loss: float, lr: float, images: int, seconds: float) -> None:
        """Report a step to all."""
        for one in self.several:
            one.step(step, total, loss=loss, lr=lr, images=images, seconds=seconds)

    def record(self, record: Mapping[str, Any]) -> None:
        """Report a line of the log to all."""
        for one in self.several:
            one.record(record)

    def show(self, text: str) -> None:
        """Report a message to all."""
        for one in self.several:
            one.show(text)

    def close(self) -> None:
        """End all reports."""
        for one in self.several:
            one.close()


class ConsoleReporter(Reporter):
    """Shows a progress bar in a terminal, or lines at intervals if the output is not a terminal.

    Args:
        console: the console.
        shown: metrics to print after a validation; None for all.
        interval: seconds between lines if the output is not a terminal.
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
        """Start the bar."""
        self._last_line = self._clock()
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("training"), BarColumn(bar_width=30), TextColumn("{task.fields[line]}"))
        self._bar = Progress(*columns, console=self._console)
        self._bar.add_task("training", total=total, completed=step, line=f"step {step}")
        self._bar.start()

    def step(self, step: int, total: int | None, *, loss: float, lr: float, images: int, seconds: float) -> None:
        """Update the bar, or print a line after the interval."""
        self._seconds = 0.9 * self._seconds + 0.1 * seconds if self._seconds else seconds
        due = self._clock() - self._last_line >= self._interval or step == total
        if self._bar is None and not due:
            return
        line = step_line(step, total, loss=loss, lr=lr, images=images, seconds=self._seconds)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, total=total, line=line)
        else:
            self._last_line = self._clock()
            self._print(line)

    def record(self, record: Mapping[str, Any]) -> None:
        """Print the metrics of a validation."""
        if record["type"] == "val":
            self._print(validation_line(record, self._shown))

    def show(self, text: str) -> None:
        """Print a line above the bar."""
        self._print(text)

    def close(self) -> None:
        """Stop the bar."""
        if self._bar is not None:
            with suppress(OSError, SystemExit):
                self._bar.stop()
            self._bar = None

    def _print(self, text: str) -> None:
        with suppress(OSError, SystemExit):  # a closed terminal or pipe (rich would exit) does not end training
            self._console.print(text, markup=False, highlight=False)


class NotebookReporter(Reporter):
    """Shows progress in a cell of a notebook: one line that is replaced, and a line per validation.

    Args:
        display: creates an output that can be replaced: ``IPython.display.display``.
        shown: metrics to show after a validation; None for all.
        interval: seconds between updates.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        display: Callable[..., Any],
        shown: Sequence[str] | None = None,
        interval: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display, self._shown, self._interval, self._clock = display, shown, interval, clock
        self._handle: Any = None
        self._lines: list[str] = []
        self._current = ""
        self._last = -float("inf")
        self._seconds = 0.0  # of a step, smoothed

    def start(self, step: int, total: int | None) -> None:
        """Create the output."""
        self._current = f"step {step}/{total or '?'}"
        self._handle = self._display({"text/plain": self._current}, raw=True, display_id=True)

    def step(self, step: int, total: int | None, *, loss: float, lr: float, images: int, seconds: float) -> None:
        """Replace the line after the interval."""
        self._seconds = 0.9 * self._seconds + 0.1 * seconds if self._seconds else seconds
        self._current = step_line(step, total, loss=loss, lr=lr, images=images, seconds=self._seconds)
        if self._clock() - self._last >= self._interval or step == total:
            self._update()

    def record(self, record: Mapping[str, Any]) -> None:
        """Show the metrics of a validation."""
        if record["type"] == "val":
            self.show(validation_line(record, self._shown))

    def show(self, text: str) -> None:
        """Add a line above the progress."""
        self._lines.append(text)
        self._update()

    def close(self) -> None:
        """Show the last step."""
        self._update()

    def _update(self) -> None:
        if self._handle is not None:
            self._last = self._clock()
            self._handle.update({"text/plain": "\n".join([*self._lines, self._current])}, raw=True)


def make_reporter(console: Console | None, shown: Sequence[str] | None = None) -> Reporter:
    """Create the reporter of a run: for a console, for a notebook cell, or a silent one."""
    if console is not None:
        return ConsoleReporter(console, shown)
    display = notebook_display()
    return Reporter() if display is None else NotebookReporter(display, shown)


def step_line(step: int, total: int | None, *, loss: float, lr: float, images: int, seconds: float) -> str:
    """Format the progress after a step; ``seconds`` is the smoothed time of a step."""
    rate = images / max(seconds, 1e-9)
    left = "measuring speed" if total is None else f"eta {duration((total - step) * seconds)}"
    return f"step {step}/{total or '?'}  loss {loss:.3f}  lr {lr:.2e}  {rate:.1f} images/s  {left}"


def validation_line(record: Mapping[str, Any], shown: Sequence[str] | None) -> str:
    """Format a validation record of the log; ``shown`` selects the metrics, None for all."""
    skipped = ("type", "step", "epoch", "best", "best_step", "time")
    names = [name for name in record if name not in skipped] if shown is None else shown
    values = ", ".join(f"{name} {record[name]:.4g}" for name in names if record.get(name) is not None)
    best = "" if record.get("best") is None else f" (best {record['best']:.4g} at step {record['best_step']})"
    return f"validation at step {record['step']}: {values}{best}"


def duration(seconds: float) -> str:
    """Format seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
