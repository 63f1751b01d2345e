"""Functions in a process of their own, for peak memory and for times without effects of the other side.

``python -m benchmarks.child MODULE:FUNCTION ARGUMENTS`` calls the function with JSON arguments. A returned dict is
printed together with the peak memory of the process. A returned callable is called once for each line of standard
input, and its time in seconds is printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

from tldet.system.memory import peak_mb

MARK = "=== result of the benchmark === "
HOW = "peak resident memory of a separate process, including imports"


def in_child(function: str, environment: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Return the dict of ``module:function`` in a new process, with ``peak_mb``.

    Raises:
        RuntimeError: the process failed; the message has its last lines.
    """
    return in_children(function, [arguments], environment)[0]


def in_children(
    function: str, arguments: Sequence[dict[str, Any]], environment: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the dicts of ``module:function`` in new processes that run at the same time; see :func:`in_child`."""
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    settings["env"] = _environment(environment)
    running = [subprocess.Popen(_command(function, each), **settings) for each in arguments]
    results = []
    try:
        for process in running:
            output, errors = process.communicate()
            if process.returncode:
                raise RuntimeError(_failed(function, process.returncode, errors))
            marked = [line for line in output.splitlines() if line.startswith(MARK)]
            results.append(json.loads(marked[-1].removeprefix(MARK)))
    finally:
        for process in running:
            process.kill()  # after an error or a signal; does nothing to a process that has ended
    return results


class Served:
    """Repeated calls of the callable of ``module:function`` in a new process; each call returns its time in seconds.

    Two of these can take turns, each with its own imports, memory allocator and threads.

    Raises:
        RuntimeError: the process failed; the message has its last lines.
    """

    def __init__(self, function: str, **arguments: Any) -> None:
        self.peak_mb = 0.0
        self._function, self._last = function, ""
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # closed by __exit__
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        text = {"text": True, "errors": "replace", "env": _environment(None)}
        self._process = subprocess.Popen(_command(function, arguments), **text, **pipes)  # type: ignore[call-overload]
        self._answer()

    def __call__(self) -> float:
        """Return the seconds of one call."""
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except OSError:
            pass  # the process has ended; _answer raises the error
        return float(self._answer()["seconds"])

    def _answer(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
                self.peak_mb = answer["peak_mb"]
                return answer
        code = self._process.wait()
        if not self._errors.closed:
            self._errors.seek(0)
            self._last = self._errors.read()
            self._errors.close()
        raise RuntimeError(_failed(self._function, code, self._last))

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()


def _command(function: str, arguments: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(more or {})}


def _failed(function: str, code: int, stderr: str) -> str:
    last = "\n".join(stderr.splitlines()[-5:])
    return f"{function} failed in its process (exit code {code}): {last}"


def main(function: str, arguments: str) -> None:
    """Call the function and print the result for :func:`in_child`, or of each call for :class:`Served`."""
    module, _, name = function.partition(":")
    result = getattr(import_module(module), name)(**json.loads(arguments))
    if callable(result):
        _serve(result)
    else:
        _print(result or {})


def _serve(call: Callable[[], object]) -> None:
    _print({})
    for _ in sys.stdin:
        start = perf_counter()
        call()
        _print({"seconds": perf_counter() - start})


def _print(result: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps({**result, 'peak_mb': peak_mb()})}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
