"""Detections are assigned to images and classes by name; otherwise evaluation stops."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tldet.coco.names import FileNames
from tldet.errors import DataError
from tldet.evaluation.coco import evaluate_files

NAMES = ["a.jpg", "b.jpg", "c.jpg"]
BOXES = [[10.0, 10, 40, 30], [50.0, 40, 20, 20], [5.0, 60, 60, 15]]


def truth(names: Any = NAMES, classes: Any = ("cat", "dog")) -> dict[str, Any]:
    images = [{"id": 10 * n, "width": 100, "height": 80} for n in range(1, 4)]
    images = [{**one, "file_name": name} if name else one for one, name in zip(images, names, strict=True)]
    rows = [
        {"id": n, "image_id": 10 * n, "category_id": 1 + n % 2, "bbox": BOXES[n - 1], "area": 1000, "iscrowd": 0}
        for n in (1, 2, 3)
    ]
    categories = [{"id": n, "name": name} if name else {"id": n} for n, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": rows, "categories": categories}


def found(ids: Any, names: Any = NAMES, **more: Any) -> list[dict[str, Any]]:
    rows = [
        {"image_id": key, "file_name": name, "category_id": 1 + n % 2, "bbox": BOXES[n - 1], "score": 0.5}
        for n, (key, name) in enumerate(zip(ids, names, strict=True), start=1)
    ]
    return [{key: value for key, value in {**row, **more}.items() if value is not ...} for row in rows]


RIGHT, REVERSED, COUNTED = [10, 20, 30], [30, 20, 10], [1, 2, 3]
PATHS = ["/data/test/a.jpg", "test\\b.jpg", "./c.jpg"]
MATCHED = [
    (truth(), found(RIGHT), False),
    (truth(), found(REVERSED), True),
    (truth(), found(COUNTED), True),
    (truth(), found(COUNTED, PATHS), True),
    (truth(["x/a.jpg", "x/b.jpg", "y/a.jpg"]), found(REVERSED, ["/d/x/a.jpg", "/d/x/b.jpg", "/d/y/a.jpg"]), True),
    (truth(["x/a.jpg", "x/b.jpg", "y/a.jpg"]), found(RIGHT, ["/d/a.jpg", "/d/b.jpg", "/d/a.jpg"]), False),
    (truth(), found(RIGHT, ["A.JPG", "B.jpg", "c.jpg"]), False),
    (truth(), found(REVERSED, ["A.JPG", "B.jpg", "c.jpg"]), True),
    (truth(["x%20y/a.jpg", "%C3%A9.jpg", "c.jpg"]), found(RIGHT, ["/d/x y/a.jpg", "/d/\u00e9.jpg", "c.jpg"]), False),
    (truth(["x%20y/a.jpg", "\u00e9.jpg", "C.JPG"]), found(REVERSED, ["x y/a.jpg", "e\u0301.jpg", "c.jpg"]), True),
    (truth([None] * 3), found(RIGHT), False),
    (truth(), found(RIGHT, file_name=...), False),
    (truth(), found(RIGHT, file_name=None), False),
]


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
@pytest.mark.parametrize(("gt", "dt", "by_name"), MATCHED, ids=range(len(MATCHED)))
def test_images(gt: Any, dt: Any, by_name: bool, engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    before = copy.deepcopy(dt)
    assert pytest.approx(1) == evaluate_files(gt, dt, engine=engine).AP
    assert ("all records are matched by file_name" in caplog.text) == by_name
    assert dt == before


STOPPED = [
    (truth(), found(COUNTED, ["a.jpg", "b.jpg", "z.jpg"]), ["detection 2", "'z.jpg'", "no image of the dataset"]),
    (truth(), found(REVERSED, ["a.jpg", "b.jpg", None]), ["detection 2", "has no file_name"]),
    (truth(), found(RIGHT, ["a.jpg", "b.jpg", "z.jpg"]), ["detection 2", "is 'c.jpg' in the ground truth"]),
    (truth(["a.jpg", "b.jpg", "a.jpg"]), found(COUNTED, ["a.jpg", "b.jpg", "a.jpg"]), ["ids 10, 30", "several"]),
    (truth(), found(RIGHT, ["clip.mp4#0"] * 3), ["'clip.mp4#0'", "no image of the dataset", "remove file_name"]),
    (truth(), found(COUNTED, file_name=...), ["detection 0", "unknown image_id 1"]),
    (truth([None] * 3), found(COUNTED), ["detection 0", "unknown image_id 1"]),
]


@pytest.mark.parametrize(("gt", "dt", "parts"), STOPPED, ids=range(len(STOPPED)))
def test_ambiguous_images_are_errors(gt: Any, dt: Any, parts: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        evaluate_files(gt, dt)
    message = str(raised.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message


def named(*pairs: tuple[int, str | None]) -> list[dict[str, Any]]:
    rows = found(RIGHT)
    for row, (key, name) in zip(rows, pairs, strict=True):
        row.update({"category_id": key} if name is None else {"category_id": key, "category_name": name})
    return rows


CLASSES = [
    (truth(), named((2, "dog"), (1, "cat"), (2, "dog")), 1, ""),
    (truth(), named((1, "dog"), (0, "cat"), (1, "dog")), 1, "all records are matched by category_name"),
    (truth(), named((2, "dog"), (7, "bird"), (2, "dog")), 0.5, "1 detection left out: the dataset does not"),
    (truth(), named((2, "dog"), (1, "bird"), (2, "dog")), 0.5, "does not have their classes (bird)"),
    (truth(classes=(None, None)), named((2, "dog"), (1, "cat"), (2, "dog")), 1, ""),
    (truth(classes=("x", "x")), named((2, "x"), (1, "x"), (2, "x")), 1, ""),
]


@pytest.mark.parametrize(("gt", "dt", "ap", "expected"), CLASSES, ids=range(len(CLASSES)))
def test_classes(gt: Any, dt: Any, ap: float, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    assert pytest.approx(ap) == evaluate_files(gt, dt).AP
    assert expected in caplog.text
    assert bool(expected) == bool(caplog.text)


NO_CLASSES = [
    (
        named((2, "bird"), (1, "fish"), (2, "bird")),
        "no category_name is a class of the ground truth (file: 'bird', 'fish'",
    ),
    (named((1, "dog"), (1, None), (1, "dog")), "detection 1 (counted from 0, image_id 20) has no category_name"),
    (named((2, None), (5, None), (2, None)), "detection 1 (counted from 0, image_id 20) has unknown category_id 5"),
]


@pytest.mark.parametrize(("dt", "expected"), NO_CLASSES, ids=range(len(NO_CLASSES)))
def test_ambiguous_classes_are_errors(dt: Any, expected: str) -> None:
    with pytest.raises(DataError) as raised:
        evaluate_files(truth(), dt)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("names", "path", "expected"),
    [
        (["a.jpg", "b.jpg"], "/x/y/b.jpg", [1]),
        (["train/a.jpg", "val/a.jpg"], "/d/val/a.jpg", [1]),
        (["train/a.jpg", "val/a.jpg"], "/d/a.jpg", [0, 1]),
        (["train/a.jpg", "val/a.jpg"], "a.jpg", [0, 1]),
        (["images\\a.jpg"], "images/a.jpg", [0]),
        (["images/a.jpg"], "/other/a.jpg", [0]),
        ([None, "a.jpg"], "c.jpg", []),
        (["a.jpg"], "", []),
        (["a.jpg"], "ba.jpg", []),
        (["a.jpg", "A.jpg"], "x/A.jpg", [1]),
        (["a.jpg", "A.jpg"], "x/A.JPG", [0, 1]),
        (["Images\\A%20b.JPG"], "d/images/a b.jpg", [0]),
    ],
)
def test_file_names(names: Any, path: str, expected: list[int]) -> None:
    assert FileNames(names).find(path) == expected
