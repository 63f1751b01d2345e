"""Progress of long operations: on a console, in a notebook cell, or hidden."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn


def progress_bars(console: Console | None, *columns: ProgressColumn) -> Progress:
    """Return progress bars on ``console``; without a console, in a notebook cell, or hidden outside notebooks.

    Args:
        console: the console; bars are hidden unless it is a terminal or a notebook cell.
        columns: columns of a bar; none for the usual ones.
    """
    from rich.progress import Progress

    if console is not None:
        shown = console.is_terminal or console.is_jupyter
        return Progress(*columns, console=console, disable=not shown, transient=True)
    display = notebook_display()
    if display is None:
        return Progress(disable=True)
    from tldet.system.notebook import NotebookProgress

    return NotebookProgress(display)


def notebook_display() -> Callable[..., Any] | None:
    """Return ``IPython.display.display`` in a notebook; None elsewhere, including an IPython shell."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return cast("Callable[..., Any]", display)
