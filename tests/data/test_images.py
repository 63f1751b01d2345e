"""Reading pictures, the odd and broken ones too."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tldet.data.images import fitted_size, read_image
from tldet.errors import DataError

UNREADABLE = {"truncated_60_percent.jpg", "corrupt_middle.png", "truncated_header.jpg", "empty.jpg", "text.jpg"}


def test_every_odd_picture(shared: Path) -> None:
    folder = shared / "data/odd_images"
    for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        path = folder / entry["file"]
        if entry["file"] in UNREADABLE:
            with pytest.raises(DataError) as raised:
                read_image(path)
            assert entry["file"] in str(raised.value)
            assert "\n" not in str(raised.value)
            continue
        image = read_image(path)
        assert image.dtype == np.uint8, entry["file"]
        assert image.shape == (entry["upright_height"], entry["upright_width"], 3), entry["file"]


def test_all_orientations_show_the_same_picture(shared: Path) -> None:
    folder = shared / "data/odd_images"
    upright = read_image(folder / "exif_orientation_1.jpg").astype(int)
    for turn in range(2, 9):
        image = read_image(folder / f"exif_orientation_{turn}.jpg").astype(int)
        assert np.abs(image - upright).mean() < 4, turn


@pytest.mark.parametrize("mode", ["cmyk.jpg", "photo.webp", "photo.bmp", "photo.tif", "rgb16.png", "progressive.jpg"])
def test_colours_are_those_of_the_photograph(shared: Path, mode: str) -> None:
    folder = shared / "data/odd_images"
    plain, image = read_image(folder / "exif_orientation_1.jpg"), read_image(folder / mode)
    assert np.abs(image.mean((0, 1)) - plain.mean((0, 1))).max() < 12


def test_a_jpeg_equals_opencv_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), picture)
    assert (read_image(path)[..., ::-1] == cv2.imread(str(path))).all()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a\.jpg: is a JPEG that breaks off"):
        read_image(path)


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [((480, 640), 800, 1333, (800, 1067)), ((300, 1200), 800, 1333, (333, 1333)), ((1, 400), 320, 512, (1, 512))],
)
def test_fitted_size(size: tuple[int, int], short: int, long: int, expected: tuple[int, int]) -> None:
    assert fitted_size(size, short, long) == expected
