"""The CUDA rehearsal as the module ``rehearsal``, and ``sync_table``."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent


def _load(name: str, path: Path) -> None:
    folders = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    assert spec
    assert spec.loader
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


_load("rehearsal", HERE / "rehearsal" / "__init__.py")
_load("sync_table", HERE / "sync_table.py")


def verified() -> bool:
    """Return whether the self-check is known to pass: with this version, on Linux, built for CUDA, without a GPU."""
    known = str(torch.__version__).startswith(f"{sys.modules['rehearsal'].VERIFIED}.")
    return known and sys.platform == "linux" and torch.version.cuda is not None and not torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _rehearsal_works() -> None:
    """Skip where the self-check fails. It runs in a process of its own, which it may crash, since it patches torch."""
    if verified():
        return
    command, paths = [sys.executable, "-m", "rehearsal.planted"], os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        pytest.skip(f"the self-check of the CUDA rehearsal fails with torch {torch.__version__}: {why}")
