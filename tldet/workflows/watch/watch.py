"""``tldet watch``: follow a training run in the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.engine.progress import validation_line
from tldet.workflows.requests import takes
from tldet.workflows.watch.request import WatchRequest
from tldet.workflows.watch.run_state import RunState, read_run_state
from tldet.workflows.watch.view import step_text, view_lines

if TYPE_CHECKING:
    from rich.console import Console

_FIRST = 10  # records printed at the start if the output is not a terminal
_METRICS = ("AP", "AP50", "bbox_AP", "top1", "top5", "val_loss")


@takes(WatchRequest)
def watch(request: WatchRequest) -> None:
    """Show the state of a run until it ends; Ctrl-C ends the display, not the run.

    In a terminal, this shows plots of the loss and the main metric, the last validations, splits and warnings. Other
    outputs get one line per log record.

    Raises:
        DataError: the folder does not exist, or is not the output directory of a run.
    """
    from rich.console import Console

    console, folder = request.console or Console(), Path(request.folder)
    run = read_run_state(folder)
    if request.once or run.ended:
        _print(console, view_lines(run, console.width, blocks=_blocks(console)))
        return
    try:
        (_follow_live if console.is_terminal else _follow_lines)(console, run, request.interval)
    except KeyboardInterrupt:
        return


def _blocks(console: Console) -> bool:
    """Return True if the console can show block characters."""
    return not console.options.ascii_only and not console.options.legacy_windows


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _states(run: RunState, interval: float) -> Iterator[RunState]:
    """Yield the state of a run after each interval, until it has ended."""
    while not run.ended:
        time.sleep(interval)
        run = read_run_state(run.folder)
        yield run


def _follow_live(console: Console, run: RunState, interval: float) -> None:
    """Redraw the state of a run in a terminal."""
    from rich.live import Live
    from rich.text import Text

    def drawn(state: RunState) -> Text:
        lines = view_lines(state, console.width, blocks=_blocks(console))
        return Text("\n".join(lines[: max(console.height - 1, 1)]), no_wrap=True, overflow="crop")

    with Live(drawn(run), console=console, auto_refresh=False) as live:
        for state in _states(run, interval):
            live.update(drawn(state), refresh=True)


def _follow_lines(console: Console, run: RunState, interval: float) -> None:
    """Print a line for each new log record and warning."""
    _print(console, [f"{run.folder}: {run.text}", *_notes(run)])
    noted, done = len(_notes(run)), len(run.records)
    _print(console, _new(run, max(done - _FIRST, 0)))
    for run in _states(run, interval):  # noqa: B020
        done = min(done, len(run.records))  # a resumed run has removed records
        _print(console, [*_notes(run)[noted:], *_new(run, done)])
        noted, done = max(noted, len(_notes(run))), len(run.records)
    _print(console, [f"{run.folder}: {run.text}"])


def _notes(run: RunState) -> list[str]:
    """Return the lines on the splits, and the warnings, in the order in which they occurred."""
    problem = [f"log.jsonl: {run.problem}"] if run.problem else []
    warnings = [f"warning: {text}" for text in (*run.status.get("warnings", []), *problem)]
    return [*run.status.get("data", []), *warnings]


def _new(run: RunState, done: int) -> list[str]:
    """Return a line for each record after the first ``done``."""
    return [
        step_text(run, one) if one["type"] == "train" else validation_line(one, _METRICS) for one in run.records[done:]
    ]
