"""The line on a split: images, objects and classes that are used."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tldet.data.dataset import CocoDataset
from tldet.workflows.training.data_summary import split_line, split_lines


def dataset(folder: Path, objects: list[tuple[int, int, int]], classes: int, images: int = 3) -> CocoDataset:
    """Objects as (image, class, iscrowd)."""
    whole: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 8, "height": 8} for i in range(1, images + 1)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "iscrowd": crowd, "bbox": [0, 0, 4, 4], "area": 16}
            for n, (i, c, crowd) in enumerate(objects, 1)
        ],
        "categories": [{"id": c, "name": f"c{c}"} for c in range(1, classes + 1)],
    }
    (folder / "a.json").write_text(json.dumps(whole))
    for image in whole["images"]:
        (folder / image["file_name"]).touch()
    return CocoDataset(str(folder / "a.json"), str(folder))


def test_images_objects_and_classes(tmp_path: Path) -> None:
    found = dataset(tmp_path, [(1, 1, 0), (1, 2, 0), (2, 2, 0), (2, 2, 1)], 3)
    text = "train: 3 images (1 without objects, 1 crowd region), 3 objects of 2 of 3 classes (c2: 2, c1: 1)"
    assert split_line("train", found) == text
    found.positions = found.positions[1:2]  # the others are skipped
    assert split_line("val", found) == "val: 1 image (1 crowd region), 1 object of 1 of 3 classes (c2: 1)"


def test_one_is_singular_and_none_is_reported(tmp_path: Path) -> None:
    assert split_line("test", dataset(tmp_path, [(1, 1, 0)], 1, 1)) == "test: 1 image, 1 object of 1 class (c1: 1)"
    text = "val: 1 image (1 without objects), 0 objects of 0 of 1 class"
    assert split_line("val", dataset(tmp_path, [], 1, 1)) == text


def test_of_many_classes_the_most_frequent_and_the_rarest_are_named(tmp_path: Path) -> None:
    objects = [(1, label, 0) for label in range(1, 9) for _ in range(label)]
    line = split_line("train", dataset(tmp_path, objects, 8))
    assert line.endswith("36 objects of 8 classes (c8: 8, c7: 7, c6: 6, c5: 5, ..., c1: 1)")


def test_a_fault_in_the_test_split_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = dataset(tmp_path, [(1, 1, 0)], 1, 1)
    section = {"type": "CocoDataset", "annotations": str(tmp_path / "a.json"), "images": str(tmp_path)}
    split_lines(found, None, section)
    assert [line.partition(":")[0] for line in caplog.messages] == ["train", "test"]
    assert all(line.endswith(f" class (c1: 1); images in {tmp_path}") for line in caplog.messages)
    split_lines(found, None, {**section, "annotations": str(tmp_path / "gone.json")})
    assert caplog.messages[-1].startswith("test split: ")
    assert "gone.json" in caplog.messages[-1]
