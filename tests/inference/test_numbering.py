"""Predictions with the ids of a dataset, and evaluation of predictions that count their images from 1."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tldet.errors import DataError
from tldet.evaluation.coco import evaluate_files
from tldet.inference.sources import InputSource, find_sources
from tldet.structures.detections import Detections
from tldet.workflows.predict.numbering import Numbering
from tldet.workflows.predict.predict import predict


def write(path: Path, names: list[str], classes: dict[int, str], **more: Any) -> Path:
    images = [{"id": 100 - n, "file_name": name, "width": 96, "height": 64} for n, name in enumerate(names)]
    categories = [{"id": key, "name": name} for key, name in classes.items()]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": [], **more}))
    return path


def inputs(*names: str) -> list[InputSource]:
    return [
        InputSource("image" if name.endswith("jpg") else "video", Path(name), Path(name).relative_to("/"))
        for name in names
    ]


def test_ids_and_names_come_from_the_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", ["x/a.jpg", "x/b.jpg"], {7: "cat", 3: "dog"})
    numbering = Numbering(path, inputs("/d/x/b.jpg"))
    numbering.take_classes(["dog", "bird", "cat"])
    boxes, scores = torch.tensor([[0.0, 0, 9, 9]] * 3), torch.tensor([0.9, 0.8, 0.7])
    found = Detections(boxes, scores, torch.tensor([0, 1, 2]), class_names=("dog", "bird", "cat"))
    records = numbering.records(found, "/d/x/b.jpg")
    assert [(r["image_id"], r["file_name"], r["category_id"], r["category_name"]) for r in records] == [
        (99, "x/b.jpg", 3, "dog"),
        (99, "x/b.jpg", 7, "cat"),
    ]
    assert numbering.left_out == 1
    with pytest.raises(DataError, match=r"a\.json: annotations and model share no class"):
        numbering.take_classes(["fish"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["/d/x/c.jpg"], "/d/x/c.jpg: is not an image of"),
        (["/d/clip.mp4"], "/d/clip.mp4: is not an image of"),
        (["/d/a.jpg"], "/d/a.jpg: matches 2 images of"),
        (["/d/x/a.jpg", "/e/x/a.jpg"], "/e/x/a.jpg: matches image id 100 of"),
    ],
)
def test_inputs_that_are_not_one_image_of_the_json(tmp_path: Path, given: list[str], expected: str) -> None:
    path = write(tmp_path / "a.json", ["x/a.jpg", "y/a.jpg"], {7: "cat"})
    with pytest.raises(DataError) as raised:
        Numbering(path, inputs(*given))
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


def test_predictions_belong_to_their_images_whatever_the_ids(
    run: Path, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = json.loads((digits / "test" / "_annotations.coco.json").read_text())
    ids = {image["id"]: 1000 - image["id"] for image in whole["images"]}
    whole["images"] = [{**image, "id": ids[image["id"]]} for image in whole["images"]]
    whole["annotations"] = [{**one, "image_id": ids[one["image_id"]]} for one in whole["annotations"]]
    gt, counted, numbered = (tmp_path / f"{name}.json" for name in ("gt", "counted", "numbered"))
    gt.write_text(json.dumps(whole))
    folder = [str(source.path) for source in find_sources([str(digits / "test")])[0]]
    predict(run / "best.pt", folder, json=counted, score=0.0)
    predict(run / "best.pt", folder, json=numbered, annotations=gt, score=0.0)
    first, second = json.loads(counted.read_text()), json.loads(numbered.read_text())
    assert first
    assert {one["image_id"] for one in first} <= set(range(1, 7))
    assert {one["image_id"] for one in second} <= set(ids.values())
    assert {one["category_name"] for one in first} <= {one["name"] for one in whole["categories"]}
    with caplog.at_level(logging.WARNING, "tldet"):
        by_name, by_id = evaluate_files(gt, counted), evaluate_files(gt, numbered)
    assert caplog.text.count("all records are matched by file_name") == 1
    assert by_name.numbers() == by_id.numbers()
    assert by_id.AR100 > 0
