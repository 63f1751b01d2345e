"""A function run in a fresh process, for its peak memory and for times without anything warm.

``python -m tldet.benchmarks.child MODULE:FUNCTION ARGUMENTS`` calls the function with the JSON arguments and prints
what it returned (a dict of numbers) and the process's peak of memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from tldet.engine.memory import peak_mb

MARK = "\n=== result of the benchmark ===\n"
HOW = "peak resident memory of a process of its own, imports included"


def in_child(function: str, environment: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """What ``module:function`` returned in a fresh process, and ``peak_mb``.

    Raises:
        RuntimeError: the process failed; its last lines.
    """
    command = [sys.executable, "-m", "tldet.benchmarks.child", function, json.dumps(arguments)]
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=given, check=False)
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-5:])
        raise RuntimeError(f"{function} failed in its own process ({done.returncode}): {last}")
    result: dict[str, Any] = json.loads(done.stdout.rpartition(MARK)[2])
    return result


def main(function: str, arguments: str) -> None:
    """Call, and print the result for :func:`in_child`."""
    module, _, name = function.partition(":")
    result = getattr(import_module(module), name)(**json.loads(arguments)) or {}
    sys.stdout.write(MARK + json.dumps({**result, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
