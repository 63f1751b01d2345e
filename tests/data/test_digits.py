"""The generated datasets."""

from __future__ import annotations

from pathlib import Path

import cv2

from tldet.data.digits import generate, generate_crops


def test_the_folder_may_be_a_string(tmp_path: Path) -> None:
    assert generate(str(tmp_path / "a"), train=2, valid=1, test=1, size=(96, 128)) == tmp_path / "a"
    images = sorted((tmp_path / "a" / "train").glob("*.jpg"))
    assert [cv2.imread(str(path)).shape for path in images] == [(96, 128, 3)] * 2
    assert generate_crops(str(tmp_path / "b"), train=3, val=1, side=32) == tmp_path / "b"
    assert len(list((tmp_path / "b" / "train").rglob("*.jpg"))) == 3
