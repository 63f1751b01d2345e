"""A command that is killed again and again; torch is imported once, every run is a fork of this process.

``python kill_run.py SPEC``: SPEC is a JSON file with ``command``, a list in which ``{out}`` is the run's folder;
``resumed``, the command for a folder with checkpoints of a killed run (null: every run gets a new folder); ``kills``,
``seed`` and ``folder``. The undisturbed run goes to ``folder/whole``, the others to ``folder/killed0`` and so on.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

MODULES = (
    "torch._dynamo",
    "tldet.workflows.study.study",
    "tldet.workflows.training.pretrain",
    "tldet.workflows.predict.predict",
    "timm",
)


def run(command: list[str], die_after: float | None) -> tuple[int, float]:
    """Run a command in a fork; returns how it ended (negative: by a signal) and the seconds that it took."""
    start = time.monotonic()
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), time.monotonic() - start
    code = 1
    try:
        import torch

        from tldet.cli.main import main

        os.setpgid(0, 0)
        torch.set_num_threads(1)
        if die_after is not None:
            timer = threading.Timer(die_after, os.killpg, (0, signal.SIGKILL))
            timer.daemon = True
            timer.start()
        code = main(command)
    finally:
        sys.stderr.flush()
        os._exit(code)


def attempt(spec: dict[str, Any], out: Path, die_after: float | None) -> tuple[int, float]:
    """Start the command in a folder, or resume it there."""
    resumes = spec["resumed"] is not None and any(out.rglob("step_*.pt"))
    command = spec["resumed"] if resumes else spec["command"]
    return run([word.replace("{out}", str(out)) for word in command], die_after)


def kill(spec: dict[str, Any]) -> list[float]:
    """Kill the command until it was alive to be killed often enough, then let it end; returns the moments."""
    folder, chance = Path(spec["folder"]), random.Random(spec["seed"])
    code, seconds = attempt(spec, folder / "whole", None)
    assert code == 0, "the undisturbed run failed"
    moments: list[float] = []
    number = 0
    while len(moments) < spec["kills"]:
        assert number < 5 * spec["kills"], "it ends before it can be killed"
        moment = chance.uniform(0.0, seconds)
        code, _ = attempt(spec, folder / f"killed{number}", moment)
        assert code in (0, -signal.SIGKILL), f"ended with {code} in killed{number}"
        if code:
            moments.append(round(moment, 2))
        if code == 0 or spec["resumed"] is None:
            number += 1
    if spec["resumed"] is not None:
        code, _ = attempt(spec, folder / f"killed{number}", None)
        assert code == 0, f"ended with {code} after the kills"
    return moments


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    moments = kill(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    sys.stdout.write(f"\n{json.dumps(moments)}\n")
