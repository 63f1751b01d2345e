"""File names lead from the merged data set to its images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tldet.data.merge.files import copy_image, copy_names, reference
from tldet.errors import DataError


def test_names_lead_back(tmp_path: Path) -> None:
    image = tmp_path / "a" / "deep" / "x y.jpg"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x")
    out = tmp_path / "runs" / "merged"
    out.mkdir(parents=True)
    (name,) = reference([tmp_path / "runs" / ".." / "a" / "deep" / "x y.jpg"], out)
    assert name == "../../a/deep/x y.jpg"
    assert (out / name).read_bytes() == b"x"


def test_names_lead_back_through_links(tmp_path: Path) -> None:
    """A folder's ``..`` is that of its real place, not of the link."""
    if os.name == "nt":
        pytest.skip("links need rights on Windows")
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    image = tmp_path / "x.jpg"
    image.write_bytes(b"x")
    out = tmp_path / "link" / "merged"
    out.mkdir()
    (name,) = reference([image], out)
    assert (out / name).read_bytes() == b"x"


def test_copies_stay_inside_and_apart() -> None:
    taken: set[str] = set()
    names = copy_names(["1_a"] * 5, ["x.jpg", "../x.jpg", "/etc/x.jpg", "X.JPG", "b/../x.jpg"], taken)
    assert names == [f"images/1_a/{n}" for n in ("x.jpg", "x_2.jpg", "etc/x.jpg", "X_3.JPG", "b/x.jpg")]
    assert copy_names(["1_a"], ["x.jpg"], taken) == ["images/1_a/x_4.jpg"]


def test_files_that_cannot_be_copied_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    copy_image(tmp_path / "file", tmp_path / "new" / "copy.jpg")
    assert (tmp_path / "new" / "copy.jpg").read_bytes() == b"x"
    with pytest.raises(DataError, match=r"copied from .*gone.jpg"):
        copy_image(tmp_path / "gone.jpg", tmp_path / "new" / "gone.jpg")
    with pytest.raises(DataError, match="cannot be created"):
        copy_image(tmp_path / "file", tmp_path / "file" / "below" / "x.jpg")
