"""``log.jsonl`` with damaged lines: a resumed run removes them with a warning."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools import no_longer_than
from tldet.engine.logging import JsonLog, read_log
from tldet.errors import DataError, OutputError

GOOD = b'{"type": "train", "step": 4, "loss": 1.0, "time": {}}\n'
DAMAGED = {
    "cut": b'{"type": "train", "step": 8, "lo\n',
    "zero bytes": b"\0" * 50 + b"\n",
    "binary": b"\x80\xff\xfe{\n",
    "empty": b"\n",
    "another value": b"[1, 2]\n",
    "number": b"3\n",
    "no step": b'{"type": "train", "time": {}}\n',
    "no type": b'{"step": 8, "time": {}}\n',
    "no time": b'{"type": "train", "step": 8, "loss": 1.0}\n',
    "step of another kind": b'{"type": "train", "step": "8", "time": {}}\n',
    "step true": b'{"type": "train", "step": true, "time": {}}\n',
    "value of another kind": b'{"type": "train", "step": 8, "loss": [1], "time": {}}\n',
    "NaN": b'{"type": "train", "step": 8, "loss": NaN, "time": {}}\n',
    "beyond a float": b'{"type": "train", "step": 8, "loss": 1e400, "time": {}}\n',
    "negative step": b'{"type": "train", "step": -8, "time": {}}\n',
    "another type": b'{"type": ["train"], "step": 8, "time": {}}\n',
    "time of another kind": b'{"type": "train", "step": 8, "time": 3}\n',
    "seconds of another kind": b'{"type": "train", "step": 8, "time": {"seconds": null}}\n',
    "best without its step": b'{"type": "val", "step": 8, "best": 0.5, "time": {}}\n',
    "digits": b'{"type": "train", "step": 1' + b"0" * 5000 + b', "time": {}}\n',
    "deep": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("after", [b"", GOOD.replace(b"4", b"6", 1)], ids=["last", "middle"])
def test_damaged_lines_are_removed_with_a_warning(
    tmp_path: Path, damage: str, after: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(GOOD + DAMAGED[damage] + after)
    assert read_log(path) == [json.loads(GOOD)]
    caplog.clear()
    JsonLog(path).cut(10)
    assert path.read_bytes() == GOOD
    (record,) = caplog.records
    assert f"{path}: line 2 is damaged; this line and {int(bool(after))} after it are ignored" in record.message


def test_a_missing_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"log\.jsonl: no such file"):
        read_log(tmp_path / "log.jsonl")


def test_a_half_written_last_line_needs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(GOOD + GOOD[:20])
    JsonLog(path).cut(10)
    assert path.read_bytes() == GOOD
    assert not caplog.records


@pytest.mark.parametrize("damage", ["zero bytes", "cut", "no step"])
def test_a_run_resumes_with_a_damaged_log(toy: ModuleType, tmp_path: Path, damage: str) -> None:
    toy.build(tmp_path, steps=10).run()
    path = tmp_path / "log.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], DAMAGED[damage], *lines[2:]]))
    assert toy.build(tmp_path, steps=20).run(resume=True).step == 20
    records = read_log(path)
    assert records[0] == json.loads(lines[0])
    assert [one["step"] for one in records[1:] if one["type"] == "train"] == [12, 16, 20]


def test_a_log_that_is_a_folder(toy: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"log\.jsonl: is a folder, not a regular file"):
        toy.build(tmp_path, steps=2).run()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_instead_of_the_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.jsonl")
    with no_longer_than(20), pytest.raises(OutputError, match=r"log\.jsonl: is a pipe, not a regular file"):
        JsonLog(tmp_path / "log.jsonl").cut(4)
