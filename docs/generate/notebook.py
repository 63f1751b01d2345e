"""Execute ``examples/quickstart.ipynb`` and store its outputs, without warnings and without paths of this machine."""

from __future__ import annotations

import json
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
    NOTEBOOK.write_text(cleaned(nbformat.writes(notebook)), encoding="utf-8")


def cleaned(text: str) -> str:
    """Return the notebook without standard error, times of execution and absolute paths."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            cell["outputs"] = [one for one in cell["outputs"] if one.get("name") != "stderr"]
    return json.dumps(notebook, indent=1, ensure_ascii=False).replace(f"{FOLDER}/", "") + "\n"


if __name__ == "__main__":
    main()
