"""Images, objects and ids of several data sets as one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.data.layouts import Split
from tldet.data.merge.classes import merge_classes
from tldet.data.merge.join import Joined, join
from tldet.data.merge.source import MergeSource, read_merge_source
from tldet.errors import DataError

NONE = -1  # stands for an annotation without an id


def source(
    path: Path, images: list[dict[str, Any]], objects: list[tuple[int, int, int]], names: list[str]
) -> MergeSource:
    """Objects are (id, image, category); each has a box of its own place unless its id is 100 or above."""
    records = [{"file_name": f"{i['id']}.jpg", "width": 60, "height": 40, **i} for i in images]
    boxes = [
        {
            "id": None if n == NONE else n,
            "image_id": i,
            "category_id": c,
            "bbox": [n % 100, 0, 0.5 if n < 100 else 30, 9],
        }
        for n, i, c in objects
    ]
    boxes = [{**one, "id": None} if one["id"] == NONE else one for one in boxes]
    categories = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    path.write_text(json.dumps({"images": records, "annotations": boxes, "categories": categories}))
    return read_merge_source(Split(path, path.parent))


def joined(sources: list[MergeSource], same: list[int]) -> Joined:
    return join(sources, merge_classes([s.categories for s in sources], {}).tables, np.array(same, np.int64))


def test_two_label_sets_on_shared_images(tmp_path: Path) -> None:
    """The second image of both is one: labeled for both sets; 100 and 101 are its red cell, annotated twice."""
    one = source(tmp_path / "a.json", [{"id": 1}, {"id": 2}], [(1, 1, 1), (100, 2, 1)], ["RBC"])
    two = source(tmp_path / "b.json", [{"id": 2}, {"id": 1}], [(1, 2, 1), (2, 1, 2), (200, 2, 2)], ["WBC", "RBC"])
    merged = joined([one, two], [0, 1, 1, 3])
    assert merged.firsts.tolist() == [0, 1, 3]
    assert merged.image_of.tolist() == [0, 1, 1, 2]
    assert merged.image_ids.tolist() == [1, 2, 3]
    assert merged.labeled == [{1}, {1, 2}, {1, 2}]
    assert merged.image_positions.tolist() == [0, 1, 1, 2, 1]
    assert merged.category_ids.tolist() == [1, 1, 2, 1, 1]
    assert merged.duplicates == [(4, 1)]
    assert merged.annotation_ids[merged.kept].tolist() == [1, 100, 3, 2]
    assert merged.object(4) == (1, 2)
    assert merged.record(3) == (1, 1)
    assert not merged.unlabeled.any()


def test_annotation_ids_that_are_missing_or_0_are_given(tmp_path: Path) -> None:
    one = source(tmp_path / "a.json", [{"id": 0}], [(0, 0, 1), (NONE, 0, 1), (1, 0, 1)], ["x"])
    two = source(tmp_path / "b.json", [{"id": 0}], [(1, 0, 1)], ["x"])
    merged = joined([one, two], [0, 1])
    assert merged.annotation_ids.tolist() == [2, 3, 1, 4]
    assert merged.image_ids.tolist() == [0, 1]


def test_stated_labels_are_mapped_and_strays_found(tmp_path: Path) -> None:
    one = source(tmp_path / "a.json", [{"id": 1, "labeled_category_ids": [2]}], [(1, 1, 1), (2, 1, 2)], ["x", "y"])
    two = source(tmp_path / "b.json", [{"id": 2, "labeled_category_ids": []}], [], ["z"])
    merged = joined([one, two], [0, 1])
    assert merged.labeled == [{2}, frozenset()]
    assert merged.unlabeled.tolist() == [True, False]


def test_one_image_has_one_size(tmp_path: Path) -> None:
    one = source(tmp_path / "a.json", [{"id": 1}], [], ["x"])
    two = source(tmp_path / "b.json", [{"id": 5}, {"id": 6, "width": 61}], [], ["x"])
    expected = (
        rf"{tmp_path / 'b.json'} states 61 x 40 for image 6 \(6.jpg\), but {tmp_path / 'a.json'} states 60 x 40 for "
        r"image 1 \(1.jpg\), which is the same image; correct one of them"
    )
    with pytest.raises(DataError, match=expected):
        joined([one, two], [0, 1, 0])
