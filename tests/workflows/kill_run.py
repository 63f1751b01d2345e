"""A command that is killed again and again; torch is imported once, every run is a fork of this process.

``python kill_run.py SPEC``: SPEC is a JSON file with ``command``, a list in which ``{out}`` is the run's folder;
``resumed``, the command for a folder with checkpoints of a killed run (null: every run gets a new folder);
``repeated``, the command that is run once more in the new folder of each killed run (null: none); ``modules``, imported
before the forks; ``kills``, ``seed`` and ``folder``. The undisturbed run goes to ``folder/whole``, the others to
``folder/killed0`` and so on. A third of the kills come at random moments, a third while a file is being written and a
third as soon as there is a new file. Standard output is a JSON list with what each kill left.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 300.0  # seconds


def start(command: list[str], errors: Path) -> int:
    """Run a command in a fork, the first process of a group; returns its id. Its standard error is appended."""
    if child := os.fork():
        os.setpgid(child, child)
        return child
    code = 1
    try:
        with errors.open("ab") as file:
            os.dup2(file.fileno(), 2)
        from tldet.cli.main import main

        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)
        code = main(command)
    finally:
        sys.stderr.flush()
        os._exit(code)


def run(command: list[str], errors: Path, dies: Callable[[], bool]) -> int:
    """Run a command until it ends or should die; returns how it ended (negative: by a signal)."""
    child, begun = start(command, errors), time.monotonic()
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if dies() or time.monotonic() - begun > LONGEST:
            os.killpg(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.0005)


def listed(folder: Path) -> dict[str, int]:
    """Identities of the files in a folder, by path."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                found[os.path.join(root, name)] = os.stat(os.path.join(root, name)).st_ino  # noqa: PTH116, PTH118
            except FileNotFoundError:  # renamed meanwhile
                continue
    return found


def is_temporary(name: str) -> bool:
    return name.endswith(".tmp")


def is_final(name: str) -> bool:
    return not (is_temporary(name) or Path(name).name.startswith("."))


def moment(kind: int, out: Path, seconds: float, chance: random.Random) -> Callable[[], bool]:
    """The moment of a kill: 0 a random one, 1 while a file is written, 2 once there is a new file."""
    end, before = time.monotonic() + chance.uniform(0.0, seconds), listed(out)
    wanted = is_temporary if kind == 1 else is_final
    left = chance.randint(1, 3)  # of the moments of this kind, the last one of a few

    def dies() -> bool:
        nonlocal before, left
        if kind == 0:
            return time.monotonic() > end
        now = listed(out)
        new = [name for name, inode in now.items() if before.get(name) != inode and wanted(name)]
        before, left = now, left - bool(new)
        return bool(new) and (left <= 0 or len(now) == 1)

    return dies


def words(command: list[str], out: Path) -> list[str]:
    return [word.replace("{out}", str(out)) for word in command]


def kill(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Kill the command until it was alive to be killed often enough, then let it end; returns what each kill left."""
    folder, chance, errors = Path(spec["folder"]), random.Random(spec["seed"]), Path(spec["folder"]) / "stderr"
    begun = time.monotonic()
    code = run(words(spec["command"], folder / "whole"), errors, lambda: False)
    assert code == 0, "the undisturbed run failed"
    seconds, kills, number = time.monotonic() - begun, list[dict[str, Any]](), 0
    for attempt in range(6 * spec["kills"]):
        out = folder / f"killed{number}"
        resumes = spec["resumed"] is not None and any(out.rglob("step_*.pt"))
        given = words(spec["resumed"] if resumes else spec["command"], out)
        code = run(given, errors, moment(attempt % 3, out, seconds, chance))
        assert code in (0, -signal.SIGKILL), f"ended with {code} in killed{number}"
        if code:
            names = [str(Path(name).relative_to(out)) for name in listed(out)]
            left = {"files": [*filter(is_final, names)], "temporary": [*filter(is_temporary, names)]}
            if spec["repeated"] is not None:
                left["code"] = run(words(spec["repeated"], out), errors, lambda: False)
                left["after"] = [*filter(is_temporary, (str(Path(name).relative_to(out)) for name in listed(out)))]
            kills.append(left)
        if code == 0 or spec["resumed"] is None:
            number += 1
        if len(kills) >= spec["kills"] and any(one["files"] for one in kills):
            break
    if spec["resumed"] is not None:
        code = run(words(spec["resumed"], folder / f"killed{number}"), errors, lambda: False)
        assert code == 0, f"ended with {code} after the kills"
    return kills


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for name in given["modules"]:
        importlib.import_module(name)
    sys.stdout.write(f"\n{json.dumps(kill(given))}\n")
