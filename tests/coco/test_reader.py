"""One set of rules: the same annotations read for training, evaluation and merging."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tldet.coco.raw import read_repaired
from tldet.coco.reader import read_coco
from tldet.data.dataset import CocoDataset
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.merge.source import read_merge_source
from tldet.errors import DataError
from tldet.evaluation.coco import evaluate_files
from tldet.evaluation.loading import load_ground_truth

SIZE = (80, 100)  # height, width
TRIANGLE = [10, 10, 50, 10, 50, 40]
RLE = {"size": list(SIZE), "counts": [805, 20, 60, 20, 8000 - 905]}


def box(**changes: Any) -> dict[str, Any]:
    """An annotation; a field of ... is left out."""
    whole = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0, **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def write(folder: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    whole = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": SIZE[1], "height": SIZE[0]}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": list(annotations),
        **changes,
    }
    path = folder / "some.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path / "cache"))


def notes_of(path: Path, command: str, caplog: pytest.LogCaptureFixture) -> tuple[list[list[float]], str]:
    """The boxes [x, y, width, height] that a command reads, and what it reports."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tldet"):
        if command == "train":
            cv2.imwrite(str(path.parent / "a.jpg"), np.zeros((*SIZE, 3), np.uint8))
            dataset = CocoDataset(str(path), str(path.parent))
            dataset.check_images()
            corners = np.array(dataset.index.boxes, np.float64)
            boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
        elif command == "evaluate":
            boxes = load_ground_truth(path, "bbox").boxes
        else:
            source = read_merge_source(Split(path, path.parent))
            return source.boxes.tolist(), "\n".join(source.notes)
    return boxes.tolist(), caplog.text


TWICE = [[10, 10, 40, 30]] * 2
RULES = [
    ([box(), box()], TWICE, "1 annotation with the id of an earlier one: renumbered (annotation 1)"),
    ([box(), box(id=...)], TWICE, "1 annotation without an id: numbered"),
    ([box(id=...), box(id=...)], TWICE, "2 annotations without an id: numbered"),
    ([box(), box(id=None)], TWICE, "1 annotation without an id: numbered"),
    ([box(id="a1"), box(id="a1")], TWICE, "2 annotations with an id that is not an integer: renumbered"),
    ([box(id=1.5), box(id=2**70)], TWICE, "2 annotations with an id that is not an integer: renumbered"),
    ([box(id=True), box(id=[1])], TWICE, "2 annotations with an id that is not an integer: renumbered"),
    ([box(id=0), box(id=-5)], TWICE, ""),
    ([box(id=7.0), box(id=8)], TWICE, ""),
    ([box(bbox=..., segmentation=[TRIANGLE])], TWICE[:1], "1 missing box derived from the segmentation"),
    ([box(bbox=None, segmentation=[TRIANGLE])], TWICE[:1], "derived from the segmentation (annotation 1)"),
    ([box(bbox=[], segmentation=[TRIANGLE, [1, 1, 2, 2]])], TWICE[:1], "derived from the segmentation"),
    ([box(bbox=..., segmentation=RLE)], [[10, 5, 2, 20]], "derived from the segmentation"),
    (
        [box(), box(id=2, bbox=..., segmentation=[[1, 1, 5, 5]])],
        TWICE[:1],
        "a polygon of 3 or more points left out (annotation 2)",
    ),
    ([box(area=..., iscrowd=...)], TWICE[:1], ""),
    ([box(area=-3), box(id=2, area=None)], TWICE, ""),
]


@pytest.mark.parametrize("command", ["train", "evaluate", "merge"])
@pytest.mark.parametrize(("annotations", "boxes", "expected"), RULES, ids=range(len(RULES)))
def test_every_command_reads_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, annotations: Any, boxes: Any, expected: str, command: str
) -> None:
    path = write(tmp_path, *annotations)
    found, message = notes_of(path, command, caplog)
    assert found == boxes
    assert expected in message
    assert expected or "number" not in message
    whole = read_repaired(path)
    assert [one["bbox"] for one in whole["annotations"]] == boxes
    assert len({one["id"] for one in whole["annotations"]}) == len(boxes)


def test_the_first_holder_keeps_its_id(tmp_path: Path) -> None:
    path = write(tmp_path, box(id=2), box(id=...), box(id=2), box(id=1), box(id="x"))
    assert read_coco(path).objects.ids.tolist() == [2, 3, 4, 1, 5]


REFUSED = [
    ([box(bbox=...)], {}, "annotation id 1 has no bbox, and no segmentation to derive one from"),
    ([box(bbox=..., segmentation=[])], {}, "annotation id 1 has no bbox, and no segmentation"),
    ([box(bbox=..., segmentation="x")], {}, "annotation id 1 has no bbox and has a segmentation that is neither"),
    ([box(bbox=..., segmentation={"size": [1, 1], "counts": [1]})], {}, "has no bbox and has a mask of size [1, 1]"),
    ([box(id=..., bbox=[1, 2])], {}, "annotation 0 (counted from 0) has bbox [1.0, 2.0]; it must be four numbers"),
    (
        [box(bbox=..., segmentation=[[[1, 1], [5, 1], [5, 5], [1, 5]]])],
        {},
        "annotation id 1 has no bbox and has a polygon that is not a flat list",
    ),
    ([*[box(id=...)] * 5000, box(id=..., bbox=[1, 2])], {}, "annotation 5000 (counted from 0) has bbox [1.0, 2.0]"),
    ([box(bbox=["1", 2, 3, 4])], {}, "annotation id 1: 'bbox' must be a list of four numbers"),
    ([box(bbox=[1, 2, 3, float("inf")])], {}, "annotation id 1 has bbox [1.0, 2.0, 3.0, inf]; it must be finite"),
    ([box(bbox=[1, 2, -3, 4])], {}, "annotation id 1 has bbox [1.0, 2.0, -3.0, 4.0]: its width or height is negative"),
    ([box(image_id=8)], {}, "annotation id 1 has unknown image_id 8: there is no such id among 1 image"),
    ([box(image_id="7")], {}, "annotation id 1: 'image_id' must be a whole number, not the text '7'"),
    ([box(image_id=7.5)], {}, "annotation id 1: 'image_id' must be a whole number"),
    ([box(image_id=2**70)], {}, "annotation id 1: 'image_id' must be a whole number <= 9223372036854775807"),
    ([box(category_id=4)], {}, "annotation id 1 has unknown category_id 4: the ids are 3"),
    ([box(category_id=...)], {}, "annotation id 1 has no 'category_id'"),
    ([box()], {"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "category id 3 occurs more than once"),
    ([box()], {"images": [{"id": 7, "file_name": n, "width": 9, "height": 9} for n in "ab"]}, "image id 7 occurs more"),
    (
        [box()],
        {"images": [{"id": 7, "file_name": "a", "width": -5, "height": 9}]},
        "'width' must be a whole number >= 0",
    ),
    ([box()], {"annotations": None}, "'annotations' must be a list, not null"),
    ([box()], {"images": []}, "has no images"),
]


@pytest.mark.parametrize("command", ["train", "evaluate", "merge"])
@pytest.mark.parametrize(("annotations", "changes", "expected"), REFUSED, ids=range(len(REFUSED)))
def test_every_command_refuses_the_same(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    annotations: Any,
    changes: dict[str, Any],
    expected: str,
    command: str,
) -> None:
    path = write(tmp_path, *annotations, **changes)
    with pytest.raises(DataError) as raised:
        notes_of(path, command, caplog)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert "\n" not in message


MASKS = [
    ([box(segmentation=[TRIANGLE, [1, 1, 5, 5]])], 1, "polygons with fewer than 3 points"),
    ([box(segmentation=[[1, 1, 5, 5], TRIANGLE, []])], 1, "polygons with fewer than 3 points"),
    ([box(segmentation=[[1, 1, 5, 5]]), box(id=2, segmentation=[TRIANGLE])], 1, "polygons with fewer than 3 points"),
    ([box(segmentation=[TRIANGLE]), box(id=2, segmentation=RLE)], 2, ""),
    ([box(segmentation=[TRIANGLE]), box(id=2, segmentation=None), box(id=3, segmentation=[])], 1, ""),
]


@pytest.mark.parametrize(("annotations", "masks", "expected"), MASKS, ids=range(len(MASKS)))
def test_degenerate_polygons_are_dropped_before_the_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, annotations: Any, masks: int, expected: str
) -> None:
    path = write(tmp_path, *annotations)
    with caplog.at_level(logging.WARNING, "tldet"):
        dataset = CocoDataset(str(path), str(tmp_path), masks=True)
    assert expected in caplog.text
    assert bool(expected) == ("dropped" in caplog.text)
    assert dataset.segmentations is not None
    assert dataset.has_mask().sum() == masks
    assert [dataset.segmentations.masks(slice(row, row + 1), SIZE).any() for row in range(len(annotations))].count(
        True
    ) == masks


@pytest.mark.parametrize(
    "segmentation", [TRIANGLE, [[1, 1, 5, 1, 5, 4, 1]], [[TRIANGLE]], [["1"] * 6], "mask.png", [[1, 1, 5, 1, 5, None]]]
)
def test_invalid_outlines_are_named_before_the_first_step(tmp_path: Path, segmentation: Any) -> None:
    path = write(tmp_path, box(segmentation=[TRIANGLE]), box(id=5, segmentation=segmentation))
    for read in (lambda: CocoDataset(str(path), str(tmp_path), masks=True), lambda: load_ground_truth(path, "segm")):
        with pytest.raises(DataError, match=r"some\.json: annotation id 5 has a "):
            read()


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
def test_an_object_without_a_mask_is_neither_right_nor_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, engine: Any
) -> None:
    two = [box(segmentation=[TRIANGLE]), box(id=2, bbox=[60, 50, 20, 20], segmentation=None)]
    path = write(tmp_path, *two)
    found = [{"image_id": 7, "category_id": 3, "score": 0.5, "segmentation": [TRIANGLE]}]
    found.append({**found[0], "score": 0.9, "segmentation": [[60, 50, 80, 50, 80, 70, 60, 70]]})
    assert pytest.approx(1) == evaluate_files(path, found, type="segm", engine=engine).AP
    assert "1 object of 2 without a segmentation: ignored regions (annotation 2)" in caplog.text
    bare = write(tmp_path, *[{**one, "segmentation": []} for one in two])
    with pytest.raises(DataError, match="annotation id 1 has no segmentation, nor has any other"):
        evaluate_files(bare, found, type="segm")


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
@pytest.mark.parametrize("ids", [(0, 1), (1, 1), (None, None), (-3, "x")])
def test_annotation_ids_do_not_change_the_numbers(tmp_path: Path, ids: tuple[Any, Any], engine: Any) -> None:
    boxes = [[10, 10, 40, 30], [60, 40, 20, 20]]
    path = write(tmp_path, *[box(id=key, bbox=one) for key, one in zip(ids, boxes, strict=True)])
    found = [{"image_id": 7, "category_id": 3, "score": 0.5, "bbox": one} for one in boxes]
    assert pytest.approx(1) == evaluate_files(path, found, engine=engine).AP


def test_a_missing_list_is_no_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path)
    whole = json.loads(path.read_text())
    del whole["annotations"]
    path.write_text(json.dumps(whole))
    for command in ("train", "evaluate", "merge"):
        boxes, message = notes_of(path, command, caplog)
        assert boxes == []
        assert "has no 'annotations' list" in message


def roboflow(**other: Any) -> list[dict[str, Any]]:
    return [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "cells", **other},
        {"id": 4, "name": "dog", "supercategory": "cells"},
    ]


DROPPED = "category 0 'cells' dropped: unused supercategory entry"
CATEGORIES = [
    (roboflow(), [box()], ["cat", "dog"], True),
    (roboflow(name="cells"), [box()], ["cells", "dog"], True),
    (roboflow()[:2], [box()], ["cat"], True),
    (roboflow(), [box(category_id=0)], ["cells", "cat", "dog"], False),
    (roboflow(supercategory="none"), [box()], ["cells", "cat", "dog"], False),
    (roboflow(supercategory="animals"), [box()], ["cells", "cat", "dog"], False),
    ([{"id": 3, "name": "cat", "supercategory": "none"}], [box()], ["cat"], False),
    ([{**roboflow()[0], "supercategory": "things"}, *roboflow()[1:]], [box()], ["cells", "cat", "dog"], False),
]


@pytest.mark.parametrize(("categories", "annotations", "names", "dropped"), CATEGORIES)
def test_roboflow_s_supercategory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, categories: Any, annotations: Any, names: Any, dropped: bool
) -> None:
    path = write(tmp_path, *annotations, categories=categories)
    for command in ("train", "evaluate", "merge"):
        assert (DROPPED in notes_of(path, command, caplog)[1]) == dropped
    assert AnnotationIndex.load(path).class_names == tuple(names)
    assert list(load_ground_truth(path, "bbox").class_names) == names
    assert [one["name"] for one in read_merge_source(Split(path, tmp_path)).categories] == names
    assert [one["name"] for one in read_repaired(path)["categories"]] == names


def test_a_class_of_the_model_is_no_unused_entry(tmp_path: Path) -> None:
    """A split without an object of a class must not make the class an unlabeled one."""
    labeled = [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 80, "labeled_category_ids": [0, 3]}]
    for images in ({}, {"images": labeled}):
        path = write(tmp_path, box(), categories=roboflow(), **images)
        index = AnnotationIndex.load(path, ["cells", "cat"])
        assert (index.class_names, index.category_ids) == (("cells", "cat"), (0, 3))
        assert index.labeled is None or index.labeled.all()
        assert index.labels.tolist() == [1]


def test_detections_of_the_dropped_entry_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, box(), categories=roboflow())
    found = [{"image_id": 7, "category_id": key, "score": 0.5, "bbox": box()["bbox"]} for key in (0, 3)]
    with caplog.at_level(logging.INFO, "tldet"):
        result = evaluate_files(path, found)
    assert (result.AP, set(result.per_class)) == (pytest.approx(1), {"cat", "dog"})
    assert "1 detection left out: the dataset does not have their classes (category id 0)" in caplog.text
