"""The same image is found by its file and by its bytes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tldet.data.merge.images import TAIL, same_images
from tldet.errors import DataError


def same(files: list[tuple[Path, int]]) -> list[int]:
    return same_images([path for path, _ in files], np.array([owner for _, owner in files], np.int64)).tolist()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_one_file_under_two_names_is_one_image_even_in_one_source(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jpg", b"x")
    (tmp_path / "a").mkdir()
    os.link(one, tmp_path / "linked.jpg")
    files = [(one, 0), (tmp_path / "a" / ".." / "one.jpg", 0), (tmp_path / "linked.jpg", 1)]
    assert same(files) == [0, 0, 0]


def test_bytes_count_between_sources_only(tmp_path: Path) -> None:
    files = [(write(tmp_path / f"{n}.jpg", b"same"), owner) for n, owner in enumerate((0, 0, 1, 1, 1, 2))]
    assert same(files[:2]) == [0, 1]
    assert same(files) == [0, 1, 0, 1, 4, 0], "in turn: no two of one source become one"


@pytest.mark.parametrize("location", [0, TAIL, 3 * TAIL - 1])
def test_one_byte_makes_the_difference(tmp_path: Path, location: int) -> None:
    content = bytearray(3 * TAIL)
    one = write(tmp_path / "one.jpg", bytes(content))
    content[location] = 1
    other, twin = write(tmp_path / "other.jpg", bytes(content)), write(tmp_path / "twin.jpg", bytes(content))
    assert same([(one, 0), (other, 1), (twin, 2)]) == [0, 1, 1]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.jpg: no such file"):
        same([(tmp_path / "gone.jpg", 0)])


def test_missing_files_are_the_same_if_their_paths_are(tmp_path: Path) -> None:
    there, gone = write(tmp_path / "a.jpg", b""), tmp_path / "gone.jpg"
    paths = [gone, there, tmp_path / "x" / ".." / "gone.jpg", tmp_path / "other.jpg"]
    owners = np.arange(4, dtype=np.int64)
    assert same_images(paths, owners, missing=True).tolist() == [0, 1, 0, 3]
