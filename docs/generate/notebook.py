"""Execute ``examples/quickstart.ipynb`` and store its outputs, without warnings and without paths of this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOK = FOLDER / "quickstart.ipynb"


def main() -> None:
    """Execute the notebook in its folder; remove the dataset and the run that it leaves."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}}).execute()
    shutil.rmtree(FOLDER / "notebook")
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    NOTEBOOK.write_text(nbformat.writes(notebook).replace(f"{FOLDER}/", "") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
