"""The real datasets: their true problems are found, and nothing else; a leaked split is found."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2

from tests.workflows.check.test_broken import checked, codes
from tldet.workflows.check.check import check


def test_coco_has_nothing_above_info(shared: Path) -> None:
    report = check(shared / "data" / "coco_mini")
    assert {one.severity for one in report.findings} == {"info"}
    assert "box-covers-image" in {one.code for one in report.findings}


def test_problems_of_bccd(shared: Path) -> None:
    """Two images of one field of view in different splits, and seven cells that are labeled twice."""
    report = check(shared / "data" / "bccd" / "coco")
    found = Counter(one.code for one in report.findings if one.severity != "info")
    assert found == {"leak-similar": 1, "box-repeated": 7}
    leak = next(one for one in report.findings if one.code == "leak-similar")
    assert (leak.image, Path(leak.related or "").name) == ("BloodImage_00037.jpg", "BloodImage_00038.jpg")
    assert report.failed


def test_boxes_without_extent_in_the_xml_of_bccd(shared: Path) -> None:
    report = check(shared / "data" / "bccd", format="voc", voc_boxes="continuous", fast=True)
    zero = {Path(one.file).stem for one in report.findings if one.code == "box-zero"}
    assert zero == {"BloodImage_00338", "BloodImage_00343"}


def test_other_formats(shared: Path) -> None:
    for name in ("coco", "cvat", "labelme", "pascal_voc", "yolo"):
        report = check(shared / "data" / "voc_formats" / name)
        assert {one.severity for one in report.findings} <= {"info"}, name
        assert sum(numbers["objects"] for numbers in report.splits.values()) == 104, name
    report = check(shared / "data" / "yolo_sample", format="yolo")
    assert {one.severity for one in report.findings} <= {"info", "warning"}
    assert {one.code for one in report.findings if one.severity == "warning"} <= {
        "class-not-in-val",
        "class-not-in-train",
    }


def test_a_leaked_split(shared: Path, tmp_path: Path) -> None:
    """Every tenth validation image, mirrored, at half the size and recompressed, in the training split."""
    source, folder = shared / "data" / "bccd", tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    values = {name: json.loads((source / "coco" / f"{name}.json").read_text()) for name in ("train", "val")}
    for whole in values.values():
        for image in whole["images"]:
            (folder / "images" / image["file_name"]).symlink_to(source / "JPEGImages" / image["file_name"])
    leaked = values["val"]["images"][::10]
    for image in leaked:
        pixels = cv2.imread(str(source / "JPEGImages" / image["file_name"]))
        small = cv2.flip(cv2.resize(pixels, (320, 240)), 1)
        name = f"copy_{image['file_name']}"
        cv2.imwrite(str(folder / "images" / name), small, [cv2.IMWRITE_JPEG_QUALITY, 50])
        copied = {"id": image["id"] + 10_000, "file_name": name, "width": 320, "height": 240}
        values["train"]["images"].append(copied)
    for name, whole in values.items():
        (folder / f"{name}.json").write_text(json.dumps(whole))
    code, report = checked(folder)
    assert code == 1
    pairs = {(one["image"], Path(one["related"]).name) for one in report["findings"] if one["code"] == "leak-similar"}
    expected = {(image["file_name"], f"copy_{image['file_name']}") for image in leaked}
    assert pairs == expected | {("BloodImage_00037.jpg", "BloodImage_00038.jpg")}
    assert len(leaked) == 9
    assert not codes(report) & {"leak-identical", "image-similar", "image-identical"}
