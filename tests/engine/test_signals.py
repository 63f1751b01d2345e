"""Signals to a whole process group, as ``timeout`` and job managers send them: nothing is lost.

Loader workers get them while they start and while they run; with several processes, every process gets them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NUMBERS = ["SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP"]
MOMENTS = ["train", "validate"]
SCRIPT = Path(__file__).with_name("signal_run.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "workers", "number", "moment"),
    [
        *((1, 0, number, moment) for number in NUMBERS for moment in MOMENTS),
        *((1, 2, number, moment) for number in NUMBERS[:1] for moment in MOMENTS),
        *((2, 1, number, moment) for number in NUMBERS[:1] for moment in MOMENTS),
        (1, 2, "SIGUSR1", "train"),
        (2, 1, "SIGINT", "validate"),
    ],
)
def test_a_signalled_group_is_saved_and_resumes(
    digits: Path, tmp_path: Path, size: int, workers: int, number: str, moment: str
) -> None:
    path = os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    given = [sys.executable, str(SCRIPT), str(tmp_path), str(digits / "train"), str(size), str(workers), moment, number]
    done = subprocess.run(given, env=environment, capture_output=True, text=True, timeout=400, check=False)
    if "too busy" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert done.stdout.count("stopped after step") == size
    assert "saved after step" in done.stdout
