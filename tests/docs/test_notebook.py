"""The notebook in ``examples`` has no outputs, and runs from start to end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.docs.pages import ROOT
from tests.docs.test_python import check

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_valid_and_has_no_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert [cell.source for cell in cells if cell.outputs or cell.execution_count is not None] == []


def test_the_code_uses_existing_names(notebook: Any) -> None:
    check("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))


@pytest.mark.slow
def test_the_notebook_runs(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps on few images: the numbers are not those of a reader, the way is."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    settings = {"STEPS = 250": "STEPS = 4", "train=200, valid=20, test=20": "train=12, valid=4, test=4"}
    for cell in notebook.cells:
        for text, shorter in settings.items():
            if cell.cell_type == "code" and text in cell.source:
                cell.source = cell.source.replace(text, shorter)
    assert sum("STEPS = 4" in cell.source or "train=12" in cell.source for cell in notebook.cells) == len(settings)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output.get("data", {}) for cell in cells for output in cell.outputs]
    assert any("image/png" in data for data in outputs)  # drawn detections
    assert re.search(r"CocoResult\(bbox AP [\d.]+", str([data.get("text/plain") for data in outputs]))
    assert (tmp_path / "notebook" / "run" / "best.pt").exists()
