"""COCO annotations are recognized by content, in every encoding and under every name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tldet.coco import recognize
from tldet.coco.recognize import examine

OBJECT = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}],
    "annotations": [OBJECT],
    "categories": [{"id": 1, "name": "x"}],
}
LICENSES = [{"id": i, "name": "Attribution-NonCommercial", "url": "http://example.org"} for i in range(1000)]


def save(folder: Path, content: Any, encoding: str = "utf-8") -> Path:
    path = folder / "a.json"
    path.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    assert not examine(save(tmp_path, COCO, encoding)).problem


@pytest.mark.parametrize(
    "content",
    [
        {"licenses": LICENSES, **COCO, "info": {"description": "x" * 70_000}},
        {**COCO, "annotations": []},
        {**COCO, "annotations": [{**OBJECT, "keypoints": [1] * 51, "num_keypoints": 17}]},
        {**COCO, "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]}]},
        {**COCO, "annotations": [{"segmentation": {"counts": [1] * 100_000, "size": [8, 8]}, **OBJECT}]},
        json.dumps(COCO).replace("[0, 0, 4, 4]", "[0, 0, NaN, 4]"),
    ],
)
def test_object_annotations(tmp_path: Path, content: Any) -> None:
    assert not examine(save(tmp_path, content)).problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({**COCO, "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}, "neither bbox nor segmentation"),
        ({**COCO, "annotations": [{"segments_info": [OBJECT], "file_name": "a.png", "image_id": 1}]}, "panoptic"),
        ({"images": COCO["images"], "categories": COCO["categories"]}, "has no annotations"),
        ({"name": "images", "annotations": "bbox"}, "has no images and no categories"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 1}], "is a list"),
    ],
)
def test_other_content(tmp_path: Path, content: Any, problem: str) -> None:
    found = examine(save(tmp_path, content))
    assert problem in found.problem
    assert not found.damaged


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is empty"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("<!DOCTYPE html><html></html>", "HTML page"),
        (json.dumps(COCO)[:-20], "is cut off"),
        ("images annotations categories", "is not valid JSON"),
    ],
)
def test_damaged(tmp_path: Path, content: str, problem: str) -> None:
    found = examine(save(tmp_path, content))
    assert problem in found.problem
    assert found.damaged
    (tmp_path / "link.json").symlink_to(tmp_path / "gone.json")
    assert examine(tmp_path / "link.json").damaged


def test_a_large_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recognize, "CACHED_FROM", 10)
    path = save(tmp_path, COCO)
    first = examine(path)
    monkeypatch.setattr(recognize, "_examine", None)
    assert examine(path) == first
    path.write_text("[]" * 10)
    with pytest.raises(TypeError):
        examine(path)  # changed: it is read again
