"""Output folders are locked, by the operating system: a killed process leaves no lock."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tldet.errors import OutputError
from tldet.system.locks import LOCK_NAME, is_unused, locked

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import os, sys, time
from tldet.system.locks import locked
with locked(sys.argv[1]):
    # With an argument, a child as a data loader's worker, which may outlive the main process, reports once it runs.
    child = len(sys.argv) > 2 and os.fork() == 0
    if child or len(sys.argv) == 2:
        print("held", flush=True)
    if child:
        time.sleep(30)
    sys.stdin.read()
"""


def hold(folder: Path, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *more], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    process = hold(tmp_path / "run")
    yield tmp_path / "run"
    process.communicate("")


def test_another_process_is_refused_at_once(held: Path) -> None:
    begun = time.monotonic()
    message = "run: is in use by another process; wait until it ends or choose another folder"
    with pytest.raises(OutputError, match=message), locked(held):
        pytest.fail("locked twice")
    assert time.monotonic() - begun < 5
    with pytest.raises(OutputError, match="is in use"), locked(held.parent / "x" / ".." / "run"):
        pytest.fail("locked by another path")


def test_the_lock_is_released_at_the_end(tmp_path: Path) -> None:
    process = hold(tmp_path)
    with pytest.raises(OutputError, match="is in use"), locked(tmp_path):
        pytest.fail("locked twice")
    process.communicate("")
    with locked(tmp_path):
        assert (tmp_path / LOCK_NAME).exists()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("more", [(), ("fork",)], ids=["alone", "with a child that lives on"])
def test_a_kill_releases_the_lock(tmp_path: Path, more: tuple[str, ...]) -> None:
    process = hold(tmp_path, *more)
    try:
        (tmp_path / ".tldet-12345678.pt.tmp").write_bytes(b"half")
        process.kill()
        process.wait()
        with locked(tmp_path):
            assert [one.name for one in tmp_path.iterdir()] == [LOCK_NAME], "leftovers are removed"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_nested_in_one_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        with locked(tmp_path / "." / ""):
            assert (tmp_path / LOCK_NAME).exists()
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, check=False, capture_output=True, input=b""
        )
        assert b"is in use by another process" in done.stderr, "still locked after the inner block"
    found: list[str] = []

    def other() -> None:
        try:
            with locked(tmp_path):
                found.append("locked")
        except OutputError:
            found.append("refused")

    with locked(tmp_path):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == ["refused"]


@pytest.mark.skipif(os.name != "posix", reason="flock")
@pytest.mark.parametrize("taken", [False, True], ids=["free", "locked by another process"])
@pytest.mark.parametrize("change", ["removed", "renamed"])
def test_a_lock_file_that_changes_between_opening_and_locking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, taken: bool
) -> None:
    import fcntl

    flock, holders = fcntl.flock, list[subprocess.Popen[str]]()
    path = tmp_path / LOCK_NAME
    path.touch()

    def late(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink() if change == "removed" else path.rename(tmp_path / "old")
        if taken:
            holders.append(hold(tmp_path))
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    if taken:
        with pytest.raises(OutputError, match="is in use"), locked(tmp_path):
            pytest.fail("locked twice")
    else:
        with locked(tmp_path):
            other = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, check=False, input=b"")
            assert other.returncode != 0, "the new file is not locked"
    assert len(holders) == taken
    for process in holders:
        process.communicate("")


LEFT = (".tldet-12345678.json.tmp", "fold1/train/.tldet-12345678.jpg.tmp", "fold2/.lock")


def leave(folder: Path, *names: str) -> Path:
    for path in (folder / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    return folder


def test_leftovers_in_subfolders(tmp_path: Path) -> None:
    run = leave(tmp_path / "run", *LEFT)
    assert is_unused(run)
    with locked(run):
        assert {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} == {LOCK_NAME, "fold2/.lock"}


@pytest.mark.parametrize("name", ["fold1/train/a.jpg", "fold1/.tldet-1.jpg", "fold1/.hidden", "split_report.json"])
def test_a_folder_with_a_file_is_used_and_left_alone(tmp_path: Path, name: str) -> None:
    run = leave(tmp_path / "run", *LEFT, name)
    assert not is_unused(run)
    with locked(run):
        assert (run / LEFT[1]).exists()
    assert (run / name).exists()


def test_a_folder_with_a_subfolder_in_use(tmp_path: Path) -> None:
    process = hold(tmp_path / "run" / "fold1" / "train")
    run = leave(tmp_path / "run", *LEFT)
    assert not is_unused(run)
    with locked(run):
        assert (run / LEFT[1]).exists(), "the file of the other process"
    process.communicate("")
    assert is_unused(run)


def test_a_folder_that_cannot_be_read_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, scan = leave(tmp_path / "run", *LEFT), os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "fold1":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert not is_unused(run)
    with locked(run):
        assert (run / LEFT[1]).exists()


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_folder_with_a_link_is_used(tmp_path: Path, target: str) -> None:
    elsewhere = leave(tmp_path / "elsewhere", ".tldet-12345678.json.tmp")
    run = leave(tmp_path / "run", *LEFT)
    (run / "link").symlink_to(tmp_path / target)
    assert not is_unused(run)
    with locked(run):
        pass
    assert list(elsewhere.iterdir()), "not followed"


def test_a_folder_that_stays_empty_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "runs" / "a"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "a" / "config.py").touch()
    assert (tmp_path / "runs" / "a" / "config.py").exists()


@pytest.mark.parametrize("name", ["file", "file/a", "a" * 300, "a\0b"])
def test_folders_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as raised, locked(tmp_path / name):
        pytest.fail("locked")
    assert "\n" not in str(raised.value)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
