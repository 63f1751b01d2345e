"""Invalid detections are refused with one line that names the record."""

import copy
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from tldet.coco.detection_checks import common_classes
from tldet.errors import DataError
from tldet.evaluation.coco import evaluate_files
from tldet.evaluation.loading import load_ground_truth

GT: dict[str, Any] = {
    "images": [{"id": 7, "width": 100, "height": 80}, {"id": 9, "width": 100, "height": 80}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 5, "bbox": [20, 20, 30, 30], "area": 900, "iscrowd": 0},
    ],
}
DT: list[dict[str, Any]] = [
    {"image_id": 7, "category_id": 3, "bbox": [10, 10, 40, 40], "score": 0.9},
    {"image_id": 9, "category_id": 5, "bbox": [20, 20, 30, 30], "score": 0.8},
]
REMOVE = object()
RLE = {"size": [80, 100], "counts": [0, 8000]}
NAN, INF = float("nan"), float("inf")
HUGE = "an integer of 5000 digits"


def changed(records: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    """The records with the second one changed."""
    records = copy.deepcopy(records)
    for key, value in changes.items():
        if value is REMOVE:
            del records[1][key]
        else:
            records[1][key] = value
    return records


def refused(tmp_path: Path, gt: Any, dt: Any, type: Any = "bbox") -> str:
    for name, content in (("gt.json", gt), ("dt.json", dt)):
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content).replace(f'"{HUGE}"', "9" * 5000)
            (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        evaluate_files(tmp_path / "gt.json", tmp_path / "dt.json", type=type)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


BAD_DETECTIONS = [
    ({"score": NAN}, ["dt.json: detection 1", "image_id 9", "score nan", "finite"]),
    ({"score": INF}, ["detection 1", "score inf"]),
    ({"score": "0.5"}, ["detection 1", "'score' must be a number", "text '0.5'"]),
    ({"score": None}, ["detection 1", "'score' must be a number", "null"]),
    ({"score": REMOVE}, ["detection 1", "no 'score'", "keys: image_id, category_id, bbox"]),
    ({"image_id": 8}, ["detection 1", "unknown image_id 8", "2 images"]),
    ({"image_id": "9"}, ["detection 1", "'image_id' must be a number", "text '9'"]),
    ({"image_id": 9.5}, ["detection 1", "unknown image_id 9.5"]),
    ({"image_id": REMOVE}, ["detection 1", "no 'image_id'"]),
    ({"category_id": 4}, ["detection 1", "unknown category_id 4", "ids are 3, 5"]),
    ({"category_id": REMOVE, "category": "dog"}, ["detection 1", "no 'category_id'", "keys:", "category"]),
    ({"bbox": REMOVE}, ["detection 1", "no bbox"]),
    ({"bbox": [1, 2, 3]}, ["detection 1", "bbox [1.0, 2.0, 3.0]", "four numbers"]),
    ({"bbox": []}, ["detection 1", "four numbers"]),
    ({"bbox": None}, ["detection 1", "'bbox' must be a list of four numbers"]),
    ({"bbox": [1, 2, 3, None]}, ["detection 1", "'bbox' must be a list of four numbers", "[1, 2, 3, null]"]),
    ({"bbox": {"x": 1}}, ["detection 1", "'bbox' must be a list of four numbers"]),
    ({"bbox": [1, 2, NAN, 4]}, ["detection 1", "bbox [1.0, 2.0, nan, 4.0]", "finite"]),
    ({"bbox": [1, 2, -3, 4]}, ["detection 1", "negative"]),
    ({"bbox": [1, 2, 1e308, 1e308]}, ["detection 1", "its area and corners must be finite"]),
    ({"score": 10**400}, ["detection 1", "'score' is an integer of more than 308 digits"]),
    ({"bbox": [1, 2, 10**400, 4]}, ["detection 1", "'bbox' is an integer of more than 308 digits"]),
    ({"bbox": [1, 2, HUGE, 4]}, ["detection 1", "'bbox' is an integer of more than 308 digits"]),
    ({"image_id": HUGE}, ["detection 1", "'image_id' is an integer of more than 308 digits"]),
    ({"image_id": 10**300}, ["detection 1", "unknown image_id 1"]),
    ({"category_id": 2**63}, ["detection 1", "unknown category_id 9223372036854775808"]),
    ({"k" * 100_000: 1, "score": REMOVE}, ["detection 1", "no 'score'", "[100001 characters]"]),
]


@pytest.mark.parametrize(("changes", "parts"), BAD_DETECTIONS)
def test_bad_detection(tmp_path: Path, changes: dict[str, Any], parts: list[str]) -> None:
    message = refused(tmp_path, GT, changed(DT, **changes))
    assert [part for part in parts if part not in message] == [], message


BAD_ANNOTATIONS = [
    ({"image_id": 8}, ["annotation id 2", "unknown image_id 8"]),
    ({"image_id": "9"}, ["annotation id 2", "'image_id' must be a whole number"]),
    ({"category_id": 4}, ["annotation id 2", "unknown category_id 4"]),
    ({"category_id": REMOVE}, ["annotation id 2", "no 'category_id'"]),
    ({"bbox": REMOVE}, ["annotation id 2", "no bbox, and no segmentation"]),
    ({"bbox": [1, 2, 3]}, ["annotation id 2", "four numbers"]),
    ({"bbox": [1, 2, INF, 4]}, ["annotation id 2", "finite"]),
    ({"bbox": [1, 2, -3, 4]}, ["annotation id 2", "negative"]),
    ({"bbox": [1, 2, 10**400, 4]}, ["annotation id 2", "'bbox' is an integer of more than 308 digits"]),
    ({"bbox": [1, 2, 3, HUGE]}, ["annotation id 2", "'bbox' is an integer of more than 308 digits"]),
    ({"area": HUGE}, ["annotation id 2", "'area' is an integer of more than 308 digits"]),
    ({"id": HUGE}, ["annotation", "'id' is an integer of more than 308 digits"]),
    ({"iscrowd": 2**70}, ["annotation id 2", "'iscrowd' must be a whole number", "2147483647"]),
    ({"image_id": 2**63}, ["annotation id 2", "'image_id' must be a whole number"]),
]


@pytest.mark.parametrize(("changes", "parts"), BAD_ANNOTATIONS)
def test_bad_annotation(tmp_path: Path, changes: dict[str, Any], parts: list[str]) -> None:
    message = refused(tmp_path, {**GT, "annotations": changed(GT["annotations"], **changes)}, DT)
    assert [part for part in parts if part not in message] == [], message


BAD_LISTS = [
    ([5, 6], ["gt.json: image id 9", "unknown category id 6 in labeled_category_ids", "known ids: 3, 5"]),
    ([5.5], ["image id 9", "'labeled_category_ids' must be a list of category ids"]),
    (["dog"], ["image id 9", "'labeled_category_ids' must be a list of category ids", '["dog"]']),
    (3, ["image id 9", "'labeled_category_ids' must be a list of category ids, not 3"]),
]


@pytest.mark.parametrize(("ids", "parts"), BAD_LISTS)
def test_bad_list_of_labeled_categories(tmp_path: Path, ids: Any, parts: list[str]) -> None:
    message = refused(tmp_path, {**GT, "images": changed(GT["images"], labeled_category_ids=ids)}, DT)
    assert all(part in message for part in parts), message


BAD_SIZES = [
    ({"width": -1}, ["image id 9", "'width' must be a whole number >= 0, not -1"]),
    ({"height": NAN}, ["image id 9", "'height' must be a whole number", "NaN"]),
    ({"height": INF}, ["image id 9", "'height' must be a whole number", "Infinity"]),
    ({"width": -INF}, ["image id 9", "'width' must be a whole number", "-Infinity"]),
    ({"width": 2**63}, ["image id 9", "'width' must be a whole number <= 2147483647", "9223372036854775808"]),
    ({"width": 1.5}, ["image id 9", "'width' must be a whole number", "1.5"]),
    ({"width": "100"}, ["image id 9", "'width' must be a whole number", "text '100'"]),
    ({"width": [100]}, ["image id 9", "'width' must be a whole number", "[100]"]),
    ({"width": True}, ["image id 9", "'width' must be a whole number", "true"]),
    ({"width": 1e300}, ["image id 9", "'width' must be a whole number"]),
    ({"height": HUGE}, ["image id 9", "'height' is an integer of more than 308 digits"]),
]


@pytest.mark.parametrize("type", ["bbox", "segm"])
@pytest.mark.parametrize(("changes", "parts"), BAD_SIZES)
def test_bad_size_of_an_image(tmp_path: Path, changes: dict[str, Any], parts: list[str], type: str) -> None:
    message = refused(tmp_path, {**GT, "images": changed(GT["images"], **changes)}, DT, type)
    assert [part for part in parts if part not in message] == [], message


DEEP = "[" * 100_000 + "]" * 100_000
BAD_FILES = [
    (None, DT, ["gt.json: no such file"]),
    (GT, None, ["dt.json: no such file"]),
    (GT, "", ["dt.json: is empty"]),
    (GT, json.dumps(DT)[:-20], ["dt.json: is cut off"]),
    (GT, json.dumps(changed(DT, score=NAN))[:-2], ["dt.json: is cut off"]),
    (json.dumps(GT)[:100], DT, ["gt.json: is cut off"]),
    (GT, "[1, 2, oops]", ["dt.json: is not valid JSON", "line 1, column 8"]),
    (GT, GT, ["dt.json", "not a list of detections", "ground truth?"]),
    (GT, {"a": 1}, ["dt.json", "must be a list of detections, not an object"]),
    (GT, "null", ["dt.json", "must be a list of detections, not null"]),
    ("null", DT, ["gt.json: must be an object with images, annotations and categories, not null"]),
    ({**GT, "annotations": None}, DT, ["gt.json: 'annotations' must be a list, not null"]),
    pytest.param(GT, DEEP, ["dt.json", "nested too deeply"], id="deep"),
    pytest.param(json.dumps(GT)[:-1] + f', "info": {DEEP}}}', DT, ["gt.json: is nested too deeply"], id="deep truth"),
    (GT, [3], ["dt.json: detection 0", "must be an object, not a number"]),
    (DT, DT, ["gt.json: is a list", "detections?"]),
    ({"images": []}, DT, ["gt.json: has no 'categories' list", "keys: images"]),
    ({**GT, "images": GT["images"] * 2}, DT, ["gt.json: image id 7 occurs more than once", "1 more"]),
    ({**GT, "categories": GT["categories"] * 2}, DT, ["gt.json: category id 3 occurs more than once"]),
    ({**GT, "categories": [{"id": 3, "name": 4}]}, DT, ["gt.json: category id 3", "'name' must be text"]),
    ({**GT, "images": [{"width": 3}]}, DT, ["gt.json: image 0 (counted from 0)", "no 'id'"]),
]


@pytest.mark.parametrize(("gt", "dt", "parts"), BAD_FILES)
def test_bad_file(tmp_path: Path, gt: Any, dt: Any, parts: list[str]) -> None:
    message = refused(tmp_path, gt, dt)
    assert [part for part in parts if part not in message] == [], message


BAD_MASKS = [
    ([{}, {}], ["detection 0", "no segmentation"]),
    ([{"segmentation": RLE}, {}], ["detection 1", "no segmentation"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": [100, 80], "counts": "1"}}], ["detection 1", "[100, 80]"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": [80, 100], "counts": [1, 2]}}], ["do not fill"]),
    ([{"segmentation": RLE}, {"segmentation": {"counts": [1, 2]}}], ["detection 1", "neither"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": 4, "counts": "1"}}], ["detection 1", "RLE"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": [80, 100], "counts": ["x"]}}], ["detection 1", "RLE"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": [80, 100], "counts": [9000, -1000]}}], ["detection 1", "RLE"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": [80, 100], "counts": "not an RLE"}}], ["detection 1", "RLE"]),
    ([{"segmentation": RLE}, {"segmentation": [[1, 2, 3]]}], ["detection 1", "three points"]),
    ([{"segmentation": RLE}, {"segmentation": [["a"] * 6]}], ["detection 1", "polygon"]),
    ([{"segmentation": RLE}, {"segmentation": "x"}], ["detection 1", "neither"]),
    ([{"segmentation": RLE}, {"segmentation": ["a"]}], ["detection 1", "neither"]),
    ([{"segmentation": RLE}, {"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}], ["detection 1", "far larger"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": [80.0, 100.0], "counts": [8000]}}], ["detection 1", "integers"]),
    ([{"segmentation": RLE}, {"segmentation": {"size": [80, 100], "counts": [[8000]]}}], ["detection 1", "flat list"]),
    (
        [{"segmentation": RLE}, {"segmentation": [[1, 2, 3, 4, 5, HUGE]]}],
        ["detection 1", "'segmentation' is an integer"],
    ),
]


@pytest.mark.parametrize(("additions", "parts"), BAD_MASKS)
def test_bad_masks(tmp_path: Path, additions: list[dict[str, Any]], parts: list[str]) -> None:
    gt = {**GT, "annotations": [{**record, "segmentation": RLE} for record in GT["annotations"]]}
    dt = [{**record, **addition} for record, addition in zip(DT, additions, strict=True)]
    message = refused(tmp_path, gt, dt, "segm")
    assert [part for part in parts if part not in message] == [], message


def test_annotations_without_masks(tmp_path: Path) -> None:
    assert "annotation id 1 has no segmentation" in refused(tmp_path, GT, DT, "segm")


def test_several_are_counted(tmp_path: Path) -> None:
    dt = [{**DT[0], "image_id": 100 + number} for number in range(4)]
    message = refused(tmp_path, GT, dt)
    assert "unknown image_id 100" in message
    assert "(3 more like it)" in message


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a regular file"):
        evaluate_files(tmp_path, DT)


def test_unknown_image_to_score() -> None:
    with pytest.raises(DataError, match="no image with id 8"):
        evaluate_files(GT, DT, image_ids=[7, 8])


def test_common_classes() -> None:
    assert common_classes(["cat", "dog"], ["dog", "bird"]) == ["dog"]
    with pytest.raises(DataError, match=r"share no class .annotations: cat; model: dog, bird"):
        common_classes(["cat"], ["dog", "bird"])


@pytest.mark.parametrize(("keyword", "value"), [("engine", "slow"), ("type", "keypoints")])
def test_programming_errors_keep_their_type(keyword: Any, value: Any) -> None:
    with pytest.raises(ValueError, match=value):
        evaluate_files(GT, DT, **{keyword: value})


BAD_TRUTH_MASKS = [
    (["a"], "neither"),
    ([[0, 0, 1e9, 0, 1e9, 1e9]], "far larger than its image"),
    ([[0, 0, 5e7, 0, 5e7, 5e7]], "far larger than its image"),
    ([[1, 2, 3, 4, 5, HUGE]], "neither"),
    ({"size": [80.0, 100.0], "counts": [8000]}, "two integers"),
    ({"size": [80, 100], "counts": [[8000]]}, "flat list of integers"),
    ({"size": [80, 100], "counts": [2**63 - 1, 2**63 - 1, 2, 8000]}, "do not fill"),
    ({"size": [2**31, 2**31], "counts": [2**62]}, "of size [2147483648, 2147483648]"),
]


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize(("segmentation", "expected"), BAD_TRUTH_MASKS)
def test_bad_masks_of_the_ground_truth(
    tmp_path: Path, segmentation: Any, expected: str, sizes: bool, boxes: bool
) -> None:
    """Also for images of unknown size, and for annotations whose box is derived from the mask."""
    gt = copy.deepcopy(GT)
    for record in gt["annotations"]:
        record["segmentation"] = RLE
    gt["annotations"][1]["segmentation"] = segmentation
    if not boxes:
        del gt["annotations"][1]["bbox"]
    if not sizes:
        gt["images"] = [{"id": 7}, {"id": 9}]
    message = refused(tmp_path, gt, [{**one, "segmentation": RLE} for one in DT], "segm")
    assert "gt.json: annotation id 2 has " in message
    assert expected in message or not sizes, message


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
def test_masks_of_different_sizes_on_images_of_unknown_size(engine: Any) -> None:
    images = [{"id": 7}, {"id": 9}]
    gt = {**GT, "images": images, "annotations": [{**one, "segmentation": RLE} for one in GT["annotations"]]}
    dt = [{**one, "segmentation": {"size": [4, 5], "counts": [0, 20]}} for one in DT]
    assert evaluate_files(gt, dt, type="segm", engine=engine).AP == 0


def test_too_many_categories() -> None:
    categories = [{"id": number, "name": str(number)} for number in range(100_000)]
    with pytest.raises(DataError, match="has 100000 categories; more than 20000 are not supported"):
        evaluate_files({**GT, "categories": categories}, DT)


def test_twenty_thousand_categories_are_read_at_once() -> None:
    categories = [{"id": number, "name": str(number), "supercategory": "none"} for number in range(20_000)]
    started = perf_counter()
    assert len(load_ground_truth({**GT, "categories": categories}, "bbox").category_ids) == 20_000
    assert perf_counter() - started < 5
