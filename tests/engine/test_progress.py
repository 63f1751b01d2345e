"""Progress in terminals, files and notebooks."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tldet.engine.progress import ConsoleReporter, NotebookReporter, Reporter, make_reporter, validation_line

VALIDATION = {"type": "val", "step": 4, "epoch": 1.0, "AP": 0.25, "AP50": 0.5, "val_loss": None, "best": 0.25}
VALIDATION |= {"best_step": 4, "time": {}}


class Cell:
    """The output of a notebook cell."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, content: dict[str, str], **_: Any) -> Cell:
        self.shown.append(content["text/plain"])
        return self

    def update(self, content: dict[str, str], **_: Any) -> None:
        self.shown.append(content["text/plain"])


def steps(reporter: Reporter, numbers: range, total: int) -> None:
    for step in numbers:
        reporter.step(step, total, loss=2.0, lr=1e-3, images=4, seconds=0.5)


def test_a_notebook_shows_one_line_that_is_replaced_and_one_per_validation() -> None:
    cell, now = Cell(), iter(float(n) / 10 for n in range(1000))
    reporter = NotebookReporter(cell, ["AP"], interval=1.0, clock=lambda: next(now))
    reporter.start(0, 50)
    steps(reporter, range(1, 50), 50)
    assert 2 < len(cell.shown) < 12, "an update per interval, not per step"
    reporter.record(VALIDATION)
    reporter.record({"type": "train", "step": 5})
    steps(reporter, range(50, 51), 50)
    reporter.close()
    lines = cell.shown[-1].splitlines()
    assert lines[0] == "validation at step 4: AP 0.25 (best 0.25 at step 4)"
    assert lines[1:] == ["step 50/50  loss 2.000  lr 1.00e-03  8.0 images/s  eta 0:00"]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        (None, Reporter),
        (SimpleNamespace(), Reporter),  # a shell in a terminal: as silent as any Python
        (SimpleNamespace(kernel=object()), NotebookReporter),
    ],
)
def test_without_a_console_only_notebooks_show_progress(
    shell: Any, expected: type[Reporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=Cell()))
    assert type(make_reporter(None)) is expected
    assert type(make_reporter(Console(file=io.StringIO()))) is ConsoleReporter


def test_without_ipython_there_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert type(make_reporter(None)) is Reporter


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (None, "validation at step 4: AP 0.25, AP50 0.5 (best 0.25 at step 4)"),
        (["AP50", "val_loss", "other"], "validation at step 4: AP50 0.5 (best 0.25 at step 4)"),
    ],
)
def test_line_of_a_validation(shown: list[str] | None, expected: str) -> None:
    assert validation_line(VALIDATION, shown) == expected
