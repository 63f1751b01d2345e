"""The image folder is the one that holds all images of the JSON; several are an error that lists them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tldet.data.image_folders import find_images
from tldet.errors import DataError


def annotations(path: Path, names: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name, "width": 8, "height": 8} for i, name in enumerate(names)]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "x"}]}))
    return path


def fill(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def numbered(count: int, start: int = 0, ending: str = ".jpg") -> list[str]:
    return [f"{i:04d}{ending}" for i in range(start, start + count)]


@pytest.mark.parametrize("other", ["masks", "drawn", "a/b/copies", "images_old"])
@pytest.mark.parametrize("where", ["train.json", "annotations/train.json"])
def test_several_folders_are_listed(tmp_path: Path, other: str, where: str) -> None:
    """The alphabetically first one was used."""
    path = annotations(tmp_path / where, numbered(5))
    fill(tmp_path / "images", numbered(5))
    assert find_images(path, tmp_path) == tmp_path / "images"
    fill(tmp_path / other, numbered(5))
    with pytest.raises(DataError, match="several folders hold all 5 images: ") as caught:
        find_images(path, tmp_path)
    assert str(tmp_path / "images") in str(caught.value)
    assert str(tmp_path / other) in str(caught.value)
    assert "choose one with --images" in str(caught.value)


def test_several_folders_beside_the_folder_of_a_json_given_by_itself(tmp_path: Path) -> None:
    path = annotations(tmp_path / "annotations" / "train.json", numbered(5))
    fill(tmp_path / "images", numbered(5))
    assert find_images(path, path.parent) == tmp_path / "images"
    fill(tmp_path / "masks", numbered(5))
    with pytest.raises(DataError, match="several folders hold all 5 images"):
        find_images(path, path.parent)


def test_all_names_are_checked(tmp_path: Path) -> None:
    path = annotations(tmp_path / "train.json", numbered(50))
    fill(tmp_path / "drawn", numbered(40))
    fill(tmp_path / "images", numbered(50))
    assert find_images(path, tmp_path) == tmp_path / "images"


def test_masks_of_another_ending_and_hidden_copies_are_none(tmp_path: Path) -> None:
    path = annotations(tmp_path / "train.json", numbered(5))
    fill(tmp_path / "masks", numbered(5, ending=".png"))
    for name in (".thumbnails", "__MACOSX", "zip/.cache"):
        fill(tmp_path / name, numbered(5))
    fill(tmp_path / "images" / "of" / "cells", numbered(5))
    (tmp_path / "link").symlink_to(tmp_path / "images" / "of" / "cells")
    assert find_images(path, tmp_path).resolve() == tmp_path / "images" / "of" / "cells"


@pytest.mark.parametrize(
    "locations", [("train/images", "val/images"), ("images/train", "images/val"), ("train", "val")]
)
def test_the_folder_of_another_split_is_the_last_choice(
    tmp_path: Path, locations: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Images numbered from 0 in every split: each JSON fits the folder of the larger split."""
    paths = [annotations(tmp_path / "labels" / f"{name}.json", numbered(n)) for name, n in (("train", 8), ("val", 5))]
    folders = [fill(tmp_path / location, numbered(n)) for location, n in zip(locations, (8, 8), strict=True)]
    assert [find_images(path, tmp_path) for path in paths] == folders
    for name in numbered(8):
        (folders[1] / name).unlink()
    with caplog.at_level(logging.WARNING):
        assert find_images(paths[1], tmp_path) == folders[0]
    assert "a folder named after another split" in caplog.text


def test_years(tmp_path: Path) -> None:
    for year in (2014, 2017):
        fill(tmp_path / f"train{year}", numbered(5))
    path = annotations(tmp_path / "annotations" / "instances_train2017.json", numbered(5))
    assert find_images(path, tmp_path) == tmp_path / "train2017"


def test_names_with_folders(tmp_path: Path) -> None:
    path = annotations(tmp_path / "a" / "train.json", ["images/x/1.jpg", "images/y/1.jpg", "../2.jpg"])
    fill(tmp_path, ["a/images/x/1.jpg", "a/images/y/1.jpg", "2.jpg"])
    assert find_images(path, tmp_path) == tmp_path / "a"


def test_the_end_of_a_path_chooses_in_every_split(tmp_path: Path) -> None:
    for part in ("train", "val"):
        path = annotations(tmp_path / part / "labels.json", numbered(5))
        for name in ("images", "masks"):
            fill(tmp_path / part / name, numbered(5))
        assert find_images(path, tmp_path, ending=Path("images")) == tmp_path / part / "images"
        with pytest.raises(DataError, match=r"--images photos: no such folder"):
            find_images(path, tmp_path, ending=Path("photos"))


def test_a_few_missing_images_are_left_to_be_named_by_the_reader(tmp_path: Path) -> None:
    path = annotations(tmp_path / "train.json", numbered(10))
    fill(tmp_path / "images", numbered(9))
    assert find_images(path, tmp_path) == tmp_path / "images"
    for name in numbered(5, 4):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(DataError, match=r"not found in .*\(best: 4 of 10 images in .*images\); use --images"):
        find_images(path, tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["images\\0000.jpg", "images\\0001.jpg"],
        ["C:\\data\\set\\images\\0000.jpg", "C:\\data\\set\\images\\0001.jpg"],
        ["/home/ann/set/images/0000.jpg", "/home/ann/set/images/0001.jpg"],
        ["Images/0000.JPG", "Images/0001.JPG"],
    ],
)
def test_names_of_other_tools(tmp_path: Path, names: list[str]) -> None:
    fill(tmp_path / "images", numbered(2))
    path = annotations(tmp_path / "train.json", names)
    assert find_images(path, tmp_path) in (tmp_path, tmp_path / "images")
    fill(tmp_path / "masks", numbered(2))
    if names[0].startswith("images"):
        assert find_images(path, tmp_path) == tmp_path, "the name decides"


def test_absolute_names_of_this_machine(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", numbered(2))
    names = [str(tmp_path / "elsewhere" / name) for name in numbered(2)]
    path = annotations(tmp_path / "data" / "train.json", names)
    fill(tmp_path / "data" / "more", numbered(2))
    assert find_images(path, tmp_path / "data") == tmp_path / "data"


@pytest.mark.parametrize("own", ["valid/labels.json", "valid.json"])
def test_a_missing_image_is_not_taken_from_another_split(tmp_path: Path, own: str) -> None:
    path = annotations(tmp_path / own, numbered(6))
    fill(tmp_path / "train", numbered(8))
    fill(tmp_path / "valid", numbered(5))
    for root in (tmp_path, path.parent):
        assert find_images(path, root) == tmp_path / "valid"
