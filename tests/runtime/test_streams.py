"""Output that cannot be written, as to a full disk, is one line and exit code 2."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tldet.errors import OutputError
from tldet.runtime.streams import CheckedStream

ROOT = Path(__file__).resolve().parents[2]
GT = {
    "images": [{"id": 1, "width": 100, "height": 80}],
    "categories": [{"id": 1, "name": "dog"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40]}],
}
full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def run(*arguments: str, unbuffered: str = "", **streams: Any) -> subprocess.CompletedProcess[str]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "tldet.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, check=False, **given)


@full_device
@pytest.mark.parametrize(
    ("arguments", "unbuffered"), [(["--help"], ""), (["--help"], "1"), (["--version"], "1"), (["test", "--help"], "")]
)
def test_short_output_on_a_full_disk(arguments: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(*arguments, unbuffered=unbuffered, stdout=full)
        assert done.returncode == 2
        assert done.stderr == "tldet: error: standard output: cannot be written (No space left on device)\n"
        assert run(*arguments, stderr=full).returncode == 0


@full_device
def test_the_metrics_are_saved_all_the_same(tmp_path: Path) -> None:
    gt, dt, out = (tmp_path / name for name in ("gt.json", "dt.json", "out.json"))
    gt.write_text(json.dumps(GT))
    dt.write_text(json.dumps([{"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9}]))
    given = ["evaluate", "--gt", str(gt), "--dt", str(dt), "--json", str(out)]
    with Path("/dev/full").open("w") as full:
        done = run(*given, stdout=full)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == (
            "tldet evaluate: error: standard output: cannot be written (No space left on device)"
        )
        assert "Traceback" not in done.stderr
        assert json.loads(out.read_text())["AP"] > 0.99
        done = run(*given, "--overwrite", stderr=full)
        assert (done.returncode, "COCO bbox" in done.stdout) == (0, True), "nobody reads notes on a full disk"
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        assert "Traceback" not in run(*given, "--overwrite", stdout=pipe).stderr, "a reader that ended early"
    done = run(*given[:-1], "/dev/full")
    assert done.returncode == 2
    assert "COCO bbox" in done.stdout, "the table is printed before the file is written"
    assert done.stderr.splitlines()[-1].startswith("tldet evaluate: error: /dev/full: cannot be written (No space left")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_for_a_reader_that_ended_early(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        assert run("--help", unbuffered=unbuffered, stdout=pipe).stderr == ""


class Failing(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    flush = write  # type: ignore[assignment]


def test_failures_of_both_streams() -> None:
    stream = CheckedStream(Failing(), "standard output")
    for call in (lambda: stream.write("a"), lambda: stream._fail(OSError(5, "Input/output error"))):
        with pytest.raises(OutputError, match=r"standard output: cannot be written \(Input/output error\)"):
            call()
    assert CheckedStream(Failing()).write("text") == 4
    assert CheckedStream(io.StringIO()).isatty() is False
