"""The cache: results are computed once, and again if their entry is damaged."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tldet.system.cache import cache_root, remembered

ANSWERS = [{"a": [1, 2.5, "x"], "b": None}, None, [], "text", 0, [0.1, -1e300]]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path))
    return tmp_path


def never() -> Any:
    raise AssertionError("is cached")


@pytest.mark.parametrize("answer", ANSWERS)
def test_computed_once(root: Path, answer: Any) -> None:
    assert remembered("kind", "key", lambda: answer) == (answer, False)
    assert remembered("kind", "key", never) == (answer, True)
    assert remembered("kind", "other", lambda: 3) == (3, False)
    assert remembered("another", "key", lambda: 4) == (4, False)
    assert len(list(root.rglob("*.json"))) == 3


def flipped(content: bytes) -> list[bytes]:
    return [bytes((*content[:i], content[i] ^ 4, *content[i + 1 :])) for i in range(len(content))]


def test_damaged_entries_are_computed_anew(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    remembered("kind", "key", lambda: {"seconds": [1.5, 2.5]})
    (path,) = root.rglob("*.json")
    content = path.read_bytes()
    cut = [content[:length] for length in range(len(content))]
    others = [b"null", b"[]", json.dumps({"seconds": [9, 9]}).encode(), content + b" ", b"\0" * len(content), b"\xff"]
    for damaged in [*flipped(content), *cut, *others]:
        path.write_bytes(damaged)
        assert remembered("kind", "key", lambda: {"seconds": [1.5, 2.5]}) == ({"seconds": [1.5, 2.5]}, False), damaged
        assert path.read_bytes() == content
    caplog.clear()
    path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        remembered("kind", "key", lambda: 1)
    assert caplog.messages == [f"{path}: is a damaged cache entry; computing it again"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_entries_that_are_no_files(root: Path) -> None:
    remembered("kind", "key", lambda: 1)
    (path,) = root.rglob("*.json")
    path.unlink()
    os.mkfifo(path)
    assert remembered("kind", "key", lambda: 2) == (2, False)
    assert remembered("kind", "key", never) == (2, True)
    path.unlink()
    path.mkdir()
    (path / "file").touch()
    assert remembered("kind", "key", lambda: 3) == (3, False)
    assert remembered("kind", "key", never) == (3, True)
    assert list(path.parent.iterdir()) == [path]


def test_a_cache_that_cannot_be_written(root: Path) -> None:
    (root / "kind").write_text("a file in place of the folder")
    for number in range(2):
        assert remembered("kind", "key", lambda number=number: number) == (number, False)


@pytest.mark.skipif(os.name != "posix", reason="the password database")
def test_a_user_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("TLDET_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "tldet"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert remembered("kind", "key", lambda: 1) == (1, False)
    assert remembered("kind", "key", never) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == [f"tldet-{os.getuid()}"]
