"""The notebook in ``examples`` is stored with the outputs of one run from start to end, and runs again."""

from __future__ import annotations

import re
import tempfile
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


def test_the_notebook_is_stored_with_its_outputs(notebook: Any) -> None:
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "make notebook executes it"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
    content = NOTEBOOK.read_text(encoding="utf-8")
    assert len(content) < 500_000
    assert not any(f"{path}/" in content for path in (ROOT, Path.home(), Path(tempfile.gettempdir())))


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
