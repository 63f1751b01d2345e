"""Progress bars on a console, in a notebook, and hidden."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tldet.system.notebook import NotebookProgress
from tldet.system.progress import progress_bars


class Cell:
    """An output of a notebook that records its contents."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, content: dict[str, str], **_: Any) -> Cell:
        self.update(content)
        return self

    def update(self, content: dict[str, str], **_: Any) -> None:
        self.shown.append(content["text/plain"])


def test_a_notebook_shows_a_line_per_task_and_removes_it() -> None:
    cell, now = Cell(), iter(float(n) / 10 for n in range(10_000))
    with NotebookProgress(cell, interval=1.0, clock=lambda: next(now)) as progress:
        task = progress.add_task("reading", total=100)
        for _ in range(100):
            progress.advance(task)
        assert 2 < len(cell.shown) < 30, "an update per interval, not per image"
        assert cell.shown[-1].startswith("reading ")
        assert "/100" in cell.shown[-1]
    assert cell.shown[-1] == ""


def test_an_iteration_is_shown_in_a_notebook() -> None:
    cell = Cell()
    with NotebookProgress(cell, interval=0.0) as progress:
        assert list(progress.track(range(3), description="copying")) == [0, 1, 2]
    assert any(text.startswith("copying ") for text in cell.shown)


def test_without_a_console_only_notebooks_show_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object())))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=cell))
    assert type(progress_bars(None)) is NotebookProgress
    assert type(progress_bars(Console(file=io.StringIO()))) is not NotebookProgress
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert progress_bars(None).disable
