"""The folder imports the standard library, numpy and OpenCV, and a runtime only when a file is loaded."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_layers import cycle_in

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tldet" / "runtime"
FILES = sorted(FOLDER.glob("*.py"))
OTHERS, RUNTIMES = {"numpy", "cv2"}, {"onnxruntime", "openvino"}


def foreign(source: str) -> set[str]:
    """The packages, other than the allowed ones, that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            names.add("." * node.level)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "need":
            names |= {str(ast.literal_eval(node.args[0]))} - RUNTIMES
    return {name for name in names if name.partition(".")[0] not in {*OTHERS, *sys.stdlib_module_names}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports(path: Path) -> None:
    assert foreign(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch", {"torch"}),
        ("def f():\n    from tldet.errors import DataError", {"tldet.errors"}),
        ("from ..errors import DataError", {".."}),
        ("import onnxruntime", {"onnxruntime"}),
        ('need("PIL", "x")', {"PIL"}),
        ('import os, numpy.typing\nfrom .errors import X\nneed("openvino", "y")', set()),
    ],
)
def test_the_check_can_fail(source: str, expected: set[str]) -> None:
    assert foreign(source) == expected


def test_there_are_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        nodes = ast.parse(path.read_text(encoding="utf-8")).body  # those within functions and for types do not count
        relative = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 1]
        graph[path.stem] = {node.module for node in relative if node.module}
    assert cycle_in(graph) == []
    assert len(graph) > 15


def test_no_folder_is_left_out_of_the_distribution() -> None:
    """The build takes the files of this folder only."""
    assert [path.name for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"] == []


def test_an_import_loads_neither_torch_nor_the_rest_of_tldet() -> None:
    code = "import json, sys; from tldet.runtime import NumpyDetector; import tldet.runtime.command"
    code += "; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert not {"torch", "PIL", "onnxruntime", "openvino", "matplotlib", "msgspec"} & set(loaded)
    assert {name for name in loaded if name.startswith("tldet") and not name.startswith("tldet.runtime")} == {"tldet"}


def test_both_distributions_have_one_license_and_one_version() -> None:
    import tldet
    from tldet import runtime

    assert (ROOT / "runtime" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert tldet.__version__ is runtime.__version__


def test_the_dockerfile_copies_and_installs_what_there_is() -> None:
    lines = (ROOT / "runtime" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert sorted(source for source, _ in copied) == ["runtime", "tldet/runtime"]
    assert all((ROOT / source).is_dir() and target == f"/source/{source}" for source, target in copied)
    project = (ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8")
    default = next(line.partition("=")[2] for line in lines if line.startswith("ARG EXTRA="))
    assert f"\n{default} = [" in project
    command = next(line for line in lines if line.startswith("ENTRYPOINT"))
    assert f"\n{json.loads(command.split(maxsplit=1)[1])[0]} = " in project, "a script of the distribution"
