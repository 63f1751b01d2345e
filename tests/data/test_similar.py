"""Copies of images are found although they are resized, recompressed and mirrored; other pairs are never reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from tldet.data.similar import find_pairs, hashes, read_thumbnails

FOLDERS = ["bccd/JPEGImages", "coco_mini/val2017", "voc_formats/JPEGImages"]
SAME_FIELD = {("BloodImage_00037.jpg", "BloodImage_00038.jpg")}  # one field of view at two depths of focus


def found(paths: Sequence[Path]) -> set[tuple[str, str]]:
    return {(paths[one.first].name, paths[one.second].name) for one in find_pairs(read_thumbnails(paths))}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_pair_of_different_images(shared: Path, folder: str) -> None:
    paths = sorted((shared / "data" / folder).glob("*.jpg"))
    assert len(paths) >= 30
    assert found(paths) == (SAME_FIELD if folder.startswith("bccd") else set())


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(("scale", "quality", "flip"), [(0.5, 60, 1), (0.3, 40, None), (1.6, 80, 0), (0.4, 50, -1)])
def test_every_copy_is_found_and_nothing_else(
    shared: Path, tmp_path: Path, folder: str, scale: float, quality: int, flip: int | None
) -> None:
    paths = sorted((shared / "data" / folder).glob("*.jpg"))
    copied = paths[:: max(1, len(paths) // 20)]
    for path in copied:
        image = cv2.resize(cv2.imread(str(path)), None, fx=scale, fy=scale)
        image = image if flip is None else cv2.flip(image, flip)
        cv2.imwrite(str(tmp_path / path.name), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    pairs = found([*paths, *(tmp_path / path.name for path in copied)])
    expected = {(path.name, path.name) for path in copied}
    if folder.startswith("bccd"):  # a copy of one image of this pair shows the same as the other
        expected |= SAME_FIELD | {(one, two) for one, two in pairs if {one, two} == set(*SAME_FIELD)}
    assert pairs == expected


def test_stretched_to_a_square(shared: Path, tmp_path: Path) -> None:
    path = sorted((shared / "data" / "coco_mini" / "val2017").glob("*.jpg"))[3]
    image = cv2.resize(cv2.imread(str(path)), (416, 416))
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    assert len(found([path, tmp_path / "a.jpg"])) == 1


def test_plain_images_are_equal_only_byte_by_byte(tmp_path: Path) -> None:
    for number, gray in enumerate((200, 200, 201)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 64, 3), gray, np.uint8))
    assert found(sorted(tmp_path.iterdir())) == {("0.png", "1.png")}


def test_unreadable_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no image")
    assert found([tmp_path / "a.jpg", tmp_path / "b.jpg"]) == set()
    assert found([]) == set()


def test_the_product_of_hashes_is_a_correlation() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
    one, two = (gray[number].reshape(8, 4, 8, 4).mean((1, 3)).ravel() for number in (0, 1))
    assert hashes(gray)[0] @ hashes(gray)[1] == pytest.approx(np.corrcoef(one, two)[0, 1], abs=1e-5)
