"""Reading of a COCO JSON for merging, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tldet.coco.ids import NO_ID
from tldet.data.layouts import Split
from tldet.data.merge.source import MergeSource, read_merge_source
from tldet.errors import DataError


def whole(**more: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 60, "height": 40, "camera": "left"}],
        "annotations": [
            {"id": 3, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "score_by": {"who": [1, 2]}},
            {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4, 5, 6]], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "x", "keypoints": ["nose"]}, {"id": 2, "name": "y"}],
        **more,
    }


def read(tmp_path: Path, content: Any) -> MergeSource:
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_merge_source(Split(path, tmp_path))


def test_records_keep_every_field(tmp_path: Path) -> None:
    given = whole(videos=[], licenses=[{"id": 1, "name": "CC"}], info={})
    source = read(tmp_path, given)
    assert [msgspec.json.decode(text) for text in source.images] == given["images"]
    assert [msgspec.json.decode(text) for text in source.objects] == given["annotations"]
    assert (source.categories, source.licenses) == (given["categories"], given["licenses"])
    assert source.left_out == ("videos",)
    assert (source.annotation_ids.tolist(), source.stated_ids.tolist()) == ([3, 1], [3, NO_ID])
    assert source.sizes.tolist() == [[40, 60]]
    assert (source.crowd.tolist(), source.has_segmentation.tolist()) == ([False, True], [False, True])
    assert source.labeled == [None]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + json.dumps(whole())).file_names == ["a.jpg"]


def test_classes_annotated_on_an_image(tmp_path: Path) -> None:
    given = whole()
    given["images"][0]["labeled_category_ids"] = [2]
    assert read(tmp_path, given).labeled == [frozenset({2})]
    given["images"][0]["labeled_category_ids"] = []
    assert read(tmp_path, given).labeled == [frozenset()]


def labeled(value: Any) -> dict[str, Any]:
    content = whole()
    content["images"][0]["labeled_category_ids"] = value
    return content


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "a.json: is empty"),
        ('{"images": [', "is cut off at line 1, column 13"),
        (whole(categories=[{"id": 1, "name": "x"}]), "annotation id 3 has unknown category_id 2"),
        (whole(categories=[{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]), "category name 'x' occurs more than once"),
        (labeled([1, 9]), "image 7 has unknown category id 9 in labeled_category_ids"),
        (labeled("all"), "image id 7: 'labeled_category_ids' must be a list of category ids, not the text 'all'"),
        (json.dumps(whole(categories=[{"id": n, "name": str(n), "mean": float("nan")} for n in (1, 2)])), "NaN or"),
        (whole(licenses=[{"id": "CC"}]), "a license has no integer id: {'id': 'CC'}"),
        (whole(licenses=[{"id": 2**63}]), "a license has no integer id: {'id': 9223372036854775808}"),
        (json.dumps(whole(licenses=[{"id": 1, "x": float("nan")}])), "'licenses' contains NaN or Infinity"),
        (whole(licenses=[1]), "licenses are not in COCO's layout"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, content: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected) as raised:
        read(tmp_path, content)
    assert str(tmp_path / "a.json") in str(raised.value)
    assert "\n" not in str(raised.value)
