"""The checkpoint format: whole or not at all, and nothing in it runs."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tldet import checkpoint
from tldet.errors import CheckpointError, OutputError

STATE = {"model": {"w": torch.arange(6.0)}, "meta": {"class_names": ["a"]}}


def test_a_folder_with_the_name_of_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    for step in (2, 3, 4):
        checkpoint.save(checkpoint.step_path(tmp_path, step), STATE)
    for step in (1, 5):
        checkpoint.step_path(tmp_path, step).mkdir()
    checkpoint.prune(tmp_path, 2)
    assert [path.name for path in checkpoint.steps_in(tmp_path)] == ["step_00000004.pt", "step_00000003.pt"]
    assert checkpoint.step_path(tmp_path, 1).is_dir()


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def test_round_trip_and_newest(tmp_path: Path) -> None:
    for step in (1, 20, 3):
        checkpoint.save(checkpoint.step_path(tmp_path, step), {**STATE, "step": step})
    found = checkpoint.newest_readable(tmp_path)
    assert found is not None
    assert found[1]["step"] == 20
    assert torch.equal(found[1]["model"]["w"], STATE["model"]["w"])
    found[0].write_bytes(found[0].read_bytes()[:300])
    again = checkpoint.newest_readable(tmp_path)
    assert again is not None
    assert again[1]["step"] == 3
    checkpoint.prune(tmp_path, 2)
    assert [p.name for p in checkpoint.steps_in(tmp_path)] == ["step_00000020.pt", "step_00000003.pt"]


def test_a_hostile_pickle_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "tldet", "model": Hostile()}, "zip.pt")
    Path("plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(
            CheckpointError, match=f"{name}: contains objects that could run|is not a checkpoint|damaged"
        ):
            checkpoint.load_checkpoint(name)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "damaged or cut off"), (b"words", "not a checkpoint"), (None, "no such file")],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=expected) as raised:
        checkpoint.load_checkpoint(path)
    assert "\n" not in str(raised.value)


def test_foreign_and_newer_ones(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="is not a tldet checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "foreign.pth")
    torch.save({"format": "tldet", "version": 99}, tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match="update tldet"):
        checkpoint.load_checkpoint(tmp_path / "new.pt")


def test_objects_are_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.meta\.path is a PosixPath|WindowsPath"):
        checkpoint.save(tmp_path / "x.pt", {"meta": {"path": Path()}})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        checkpoint.save(tmp_path / "file" / "x.pt", STATE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(small_disk: Path) -> None:
    first = checkpoint.step_path(small_disk, 1)
    checkpoint.save(first, {"model": {"w": torch.zeros(200_000)}})
    with pytest.raises(OutputError, match=r"No space left.*; free some disk space; earlier files are") as raised:
        checkpoint.save(checkpoint.step_path(small_disk, 2), {"model": {"w": torch.zeros(600_000)}})
    assert "\n" not in str(raised.value)
    assert [p.name for p in small_disk.iterdir()] == [first.name]
    assert checkpoint.load_checkpoint(first)["model"]["w"].shape == (200_000,)


def test_no_text_file_gets_past_the_reader(tmp_path: Path) -> None:
    """torch's unpickler follows whatever the bytes say: junk gives IndexError, struct.error, TypeError, ..."""
    path = tmp_path / "x.pt"
    random = np.random.default_rng(0)
    texts = [bytes(random.integers(32, 127, 40, dtype=np.uint8)) for _ in range(300)]
    texts += [bytes([first]) + b"\n" for first in range(32, 127)]
    for text in texts:
        path.write_bytes(text)
        with pytest.raises(CheckpointError) as raised:
            checkpoint.load_checkpoint(path)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("junk", [b"0", b"G1", b"(a", b"}(1", b"\x80\x02b.", b"Nb."])
def test_a_damaged_newest_one_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    checkpoint.save(checkpoint.step_path(tmp_path, 1), {**STATE, "step": 1})
    checkpoint.step_path(tmp_path, 2).write_bytes(junk)
    found = checkpoint.newest_readable(tmp_path)
    assert found is not None
    assert found[1]["step"] == 1


def test_one_without_a_version_is_none_of_ours(tmp_path: Path) -> None:
    torch.save({"format": "tldet"}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="is not a tldet checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "x.pt")
