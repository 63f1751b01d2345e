"""Input files: regular files are read, everything else is one line."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import no_longer_than
from tldet.errors import CheckpointError, DataError
from tldet.system.inputs import entry_kind, exists, is_file, is_folder, read_file, real_path, require_file

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
LONG = "x" * 5000


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Fail instead of waiting forever for a pipe."""
    with no_longer_than(10):
        yield


@pytest.fixture
def locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "to_pipe").symlink_to("pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing", "nothing: no such file"),
        ("file/below", "file/below: no such file"),
        ("broken", "broken: is a link to a missing file"),
        ("folder", "folder: is a folder, not a regular file"),
        ("pipe", "pipe: is a pipe, not a regular file"),
        ("to_pipe", "to_pipe: is a pipe, not a regular file"),
        ("socket", "socket: is a socket, not a regular file"),
        ("/dev/zero", "/dev/zero: is a device, not a regular file"),
        ("loop", "loop: cannot be read: Too many levels of symbolic links"),
        (LONG, "cannot be read: File name too long"),
        ("a\0b", r"'a\x00b': is not a valid path: it contains a null character"),
    ],
)
def test_special_files_are_one_line_errors(locations: Path, name: str, expected: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        for check in (require_file, read_file):
            with pytest.raises(CheckpointError) as raised:
                check(name, CheckpointError)
            assert expected in str(raised.value)
            assert len(str(raised.value)) < 500
        assert not is_file(name)
        assert is_folder(name) == (name == "folder")
        assert exists(name) == (name in ("folder", "pipe", "to_pipe", "socket", "/dev/zero"))


def test_regular_files_are_read(locations: Path) -> None:
    for name in ("file", "link", Path("file")):
        assert read_file(name, DataError) == b"content"
        assert require_file(name, DataError).st_size == 7
        assert is_file(name)
    with pytest.raises(DataError, match=r"^the data: no such file$"):
        read_file("nothing", DataError, "the data")


def test_a_file_larger_than_memory(locations: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", full)
    with pytest.raises(DataError, match=r"file: does not fit into memory \(0.0 GiB\)"):
        read_file("file", DataError)


def test_entries_of_a_folder(locations: Path) -> None:
    with os.scandir(locations) as entries:
        kinds = {entry.name: entry_kind(entry) for entry in entries}
    others = dict.fromkeys(("pipe", "broken", "loop", "to_pipe"), "other")
    assert kinds == {"file": "file", "link": "file", "folder": "folder", **others}


def test_real_paths(locations: Path) -> None:
    real = locations.resolve()
    assert real_path("link") == real / "file"
    assert real_path("loop") == real / "loop"
    assert real_path("loop/below") == real / "loop" / "below"
    assert real_path("a\0b") == Path.cwd() / "a\0b"
