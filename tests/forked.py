"""Commands in processes of their own, without the seconds in which each would import torch.

A server process imports the libraries once; each command runs in a fork of it, with its own folder, environment and
output. Tests of what a new process imports, and of its allocator, start a new interpreter instead.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ["torch._dynamo", "torchvision", "timm", "cv2", "tldet.workflows.training.finetune", "tldet.workflows.test"]


@cache
def get_context(_: str = "forkserver") -> Any:
    """Return ``multiprocessing`` with the server, in place of any other start method."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    ensure_running()  # loader workers are started with signals blocked; a server started there would block them for all
    return context


def start(
    words: Sequence[object],
    output: Path,
    *,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    group: bool = False,
) -> BaseProcess:
    """Start a command.

    Args:
        words: ``tldet`` or the path of a script, and its arguments.
        output: folder of the files ``stdout`` and ``stderr``.
        cwd: current folder.
        env: environment; that of this process by default.
        group: make the process the first one of a process group of its own.
    """
    given = ([str(word) for word in words], str(output), str(cwd), dict(os.environ if env is None else env), group)
    process: BaseProcess = get_context().Process(target=_enter, args=given)
    process.start()
    return process


def run(
    words: Sequence[object], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; see :func:`start`."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(words, Path(folder), cwd=cwd, env=env)
        process.join()
        out, err = ((Path(folder) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(words), process.exitcode, out, err)


def _enter(words: list[str], output: str, cwd: str, env: dict[str, str], group: bool) -> None:
    if group:
        os.setpgid(0, 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(Path(output) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = words
    if words[0] == "tldet":
        from tldet.cli.main import entry

        entry()
    runpy.run_path(words[0], run_name="__main__")
