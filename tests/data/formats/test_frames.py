"""Frames of videos as images of a dataset."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.formats.twins import boxes_of
from tldet.data.formats.prepare import check_files, complete
from tldet.data.formats.records import Dataset
from tldet.data.formats.source import SourceOptions, read_source
from tldet.errors import DataError

SIZE = (1280, 720)
BOXES = {0: (809, 409, 942, 495), 19: (812, 412, 942, 496), 37: (814, 412, 942, 492)}


@pytest.fixture(scope="module")
def video(shared: Path) -> Path:
    return shared / "data" / "video" / "two_cars.mp4"


def _read(folder: Path, frames: Path, images: Path | None = None) -> Dataset:
    found = read_source(folder, SourceOptions(), images, frames=frames)
    complete(found)
    check_files(found)
    return found


def _cvat(path: Path, name: str) -> None:
    lines = ["<annotations>"]
    for number, (x0, y0, x1, y1) in BOXES.items():
        lines.append(f'<image id="{number}" name="{name.format(number)}" width="{SIZE[0]}" height="{SIZE[1]}">')
        lines.append(f'<box label="car" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}"/></image>')
    path.write_text("\n".join([*lines, "</annotations>"]))


@pytest.mark.parametrize(
    "name", ["frame_{:06d}", "two_cars_{:06d}.jpg", "two_cars/frame_{}.PNG", "{:04d}.png", "two_cars.mp4/{}"]
)
def test_names_of_frames(tmp_path: Path, video: Path, name: str) -> None:
    _cvat(tmp_path / "annotations.xml", name)
    (tmp_path / "two_cars.mp4").symlink_to(video)
    found = _read(tmp_path, tmp_path / "out")
    assert [image.path.name for image in found.images] == ["000000.png", "000019.png", "000037.png"]
    means = [cv2.imread(str(image.path)).mean((0, 1))[::-1] for image in found.images]
    np.testing.assert_allclose(means[0], [98.7, 105.9, 113.9], atol=1)  # see the video's README
    np.testing.assert_allclose(means[2], [114.4, 124.4, 131.4], atol=1)
    assert boxes_of(found)["000019.png", "car"] == [BOXES[19]]


def test_labels_of_frames(tmp_path: Path, video: Path) -> None:
    """YOLO labels name frames by their own file names; the video is named by --images."""
    for number, (x0, y0, x1, y1) in BOXES.items():
        values = ((x0 + x1) / 2 / SIZE[0], (y0 + y1) / 2 / SIZE[1], (x1 - x0) / SIZE[0], (y1 - y0) / SIZE[1])
        (tmp_path / f"two_cars_{number}.txt").write_text("0 " + " ".join(map(str, values)) + "\n")
    (tmp_path / "classes.txt").write_text("car\n")
    found = _read(tmp_path, tmp_path / "out", video)
    for number, box in BOXES.items():
        np.testing.assert_allclose(boxes_of(found)[f"{number:06d}.png", "car"], [box], atol=1e-9)


def test_a_frame_beyond_the_end_is_named(tmp_path: Path, video: Path) -> None:
    values = {"shapes": [], "imagePath": "two_cars_38.jpg", "imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    (tmp_path / "two_cars_38.json").write_text(json.dumps(values))
    (tmp_path / "two_cars.mp4").symlink_to(video)
    with pytest.raises(DataError, match=r"two_cars_38\.json: names frame 38 .* has 38 frames, counted from 0"):
        _read(tmp_path, tmp_path / "out")
