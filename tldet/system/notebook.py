"""Progress in a notebook cell, as text, which needs no widgets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.progress import Progress, Task, TaskID


class NotebookProgress(Progress):
    """Shows a line per task in a cell, and removes it at the end.

    Args:
        display: creates an output that can be replaced: ``IPython.display.display``.
        interval: seconds between updates.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self, display: Callable[..., Any], interval: float = 0.5, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._display, self._interval, self._clock = display, interval, clock
        self._handle: Any = None
        self._last = -float("inf")
        super().__init__(disable=True)  # of the display on a console

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count finished parts of a task."""
        super().advance(task_id, advance)
        self.refresh()

    def refresh(self) -> None:
        """Replace the lines after the interval."""
        if self._clock() - self._last >= self._interval:
            self._last = self._clock()
            self._show("\n".join(_line(task) for task in self.tasks))

    def stop(self) -> None:
        """Remove the lines."""
        super().stop()
        if self._handle is not None:
            self._show("")

    def _show(self, text: str) -> None:
        content = {"text/plain": text}
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _line(task: Task) -> str:
    total = "?" if task.total is None else f"{task.total:g}"
    left = "" if task.time_remaining is None else f"  eta {task.time_remaining:.0f} s"
    return f"{task.description} {task.completed:g}/{total}{left}"
