"""The JSON files of what is to be merged, and their images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tldet.data.layouts import Split
from tldet.data.merge.inputs import MergeInput, find_inputs
from tldet.errors import DataError


def write(path: Path, images: Path, name: str = "a.jpg") -> Path:
    for folder in (path.parent, images):
        folder.mkdir(parents=True, exist_ok=True)
    (images / name).write_bytes(b"x")
    image = {"id": 1, "file_name": name, "width": 8, "height": 8}
    path.write_text(json.dumps({"images": [image], "annotations": [], "categories": [{"id": 1, "name": "x"}]}))
    return path


def test_folders_bring_their_parts_and_files_are_to_train_on(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / "lab" / f"{part}.json", tmp_path / "lab" / "images", "b.jpg")
    alone, other = (write(tmp_path / name, tmp_path / "elsewhere") for name in ("val.json", "b.json"))
    lab, elsewhere = tmp_path / "lab", tmp_path / "elsewhere"
    expected = [
        MergeInput("1_val", "train", Split(alone, elsewhere)),
        MergeInput("2_lab", "train", Split(lab / "train.json", lab / "images")),
        MergeInput("2_lab", "val", Split(lab / "val.json", lab / "images")),
        MergeInput("3_b", "train", Split(other, elsewhere)),
    ]
    assert find_inputs([alone, lab, other], []) == expected
    assert find_inputs([alone, lab, other], [elsewhere]) == expected
    chosen = find_inputs([alone, lab, other], [lab, elsewhere])
    assert [one.split.images for one in chosen] == [lab, lab / "images", lab / "images", elsewhere]


def test_images_without_a_file_to_belong_to(tmp_path: Path) -> None:
    labs = [tmp_path / "a", tmp_path / "b"]
    for lab in labs:
        write(lab / "train.json", lab)
    with pytest.raises(DataError, match="--images is given 1 time for 0 annotation files"):
        find_inputs(labs, [tmp_path])


def test_several_files_or_image_folders_of_a_folder_are_listed(tmp_path: Path) -> None:
    labs = [tmp_path / "a", tmp_path / "b"]
    for lab in labs:
        write(lab / "train.json", lab / "images")
    write(labs[1] / "train.json", labs[1] / "masks")
    with pytest.raises(DataError, match=r"several folders hold the only image: .*images, .*masks; use the JSON files"):
        find_inputs(labs, [])
    write(labs[0] / "old_train.json", labs[0] / "images")
    with pytest.raises(DataError, match=r"old_train.json, train.json; leave one of them in the folder, or use the"):
        find_inputs(labs, [])


def test_links_that_form_loops(tmp_path: Path) -> None:
    labs = [tmp_path / "a", tmp_path / "b"]
    for lab in labs:
        write(lab / "train.json", lab / "images")
        (lab / "here").symlink_to(".")
        (lab / "images" / "loop").symlink_to("loop")
        (lab / "loop").symlink_to("loop")
    (tmp_path / "loop.json").symlink_to("loop.json")
    found = [one.split.images.resolve() for one in find_inputs(labs, [])]
    assert found == [(lab / "images").resolve() for lab in labs]
    with pytest.raises(DataError, match=r"loop\.json: cannot be read: Too many levels of symbolic links"):
        find_inputs([labs[0], tmp_path / "loop.json"], [])
    with pytest.raises(DataError, match=r"too long"):
        find_inputs([labs[0], tmp_path / ("x" * 5000)], [])
    (labs[0] / "val.json").symlink_to("val.json")
    with pytest.raises(DataError, match=r"val\.json: cannot be read: Too many levels of symbolic links; repair or"):
        find_inputs(labs, [])
