"""The same boxes in several formats are read alike, and train the same detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.formats.twins import TWINS, boxes_of, prepared, read_twin
from tldet.data.formats.source import SourceOptions, read_source
from tldet.errors import DataError


@pytest.fixture(scope="module")
def twins(shared: Path) -> Path:
    return shared / "data" / "voc_formats"


@pytest.mark.parametrize("name", [name for name in TWINS if name != "coco"])
def test_twins_give_the_boxes_of_the_coco_json(twins: Path, name: str) -> None:
    expected, found = boxes_of(read_twin(twins, "coco")), boxes_of(read_twin(twins, name))
    assert sorted(found) == sorted(expected)
    assert sum(map(len, found.values())) == 104
    for key, boxes in expected.items():
        np.testing.assert_allclose(found[key], boxes, rtol=0, atol=1e-3 if name == "yolo" else 0)


def test_a_folder_with_several_formats_lists_all_of_them(twins: Path) -> None:
    with pytest.raises(DataError) as error:
        read_source(twins, SourceOptions())
    for title in ("COCO JSON", "CVAT for images", "labelme", "Pascal VOC", "YOLO"):
        assert title in str(error.value)
    assert read_source(twins, SourceOptions(format="cvat")).format == "cvat"


def test_corners_of_voc_are_inclusive_by_default(twins: Path) -> None:
    found, plain = prepared(twins / "pascal_voc"), read_twin(twins, "voc")
    assert "inclusive" in found.details[0]
    for one, other in zip(found.images, plain.images, strict=True):
        for a, b in zip(one.shapes, other.shapes, strict=True):
            assert a.box is not None
            assert b.box is not None
            assert np.subtract(b.box, a.box).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_bccd_equals_its_json_except_for_two_boxes_without_extent(shared: Path, split: str) -> None:
    folder = shared / "data" / "bccd"
    found = prepared(folder, format="voc", voc_boxes="inclusive")
    assert found.tally.counts() == {"boxes of zero extent left out": 2}
    assert "BloodImage_00338.xml: line 158" in found.notes()[0]
    found.images = found.splits()[split]
    assert boxes_of(found) == boxes_of(prepared(folder / "coco" / f"{split}.json"))


def test_yolo_sample_equals_its_json_except_for_the_crowd(shared: Path) -> None:
    folder = shared / "data" / "yolo_sample"
    found = prepared(folder / "data.yaml")
    assert {split: len(images) for split, images in found.splits().items()} == {"train": 15, "val": 5}
    for split in ("train", "val"):
        truth = prepared(folder / "coco" / f"{split}.json")
        for image in truth.images:
            image.shapes = [shape for shape in image.shapes if not shape.crowd]
        expected = boxes_of(truth)
        images = found.splits()[split]
        own = boxes_of(type(found)("yolo", folder, images, found.classes))
        assert sorted(own) == sorted(expected)
        for key, boxes in expected.items():
            np.testing.assert_allclose(own[key], boxes, atol=1e-2)


def _train(twins: Path, name: str, out: Path, classes: Path) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    from tldet.workflows.training.finetune import finetune

    settings = {"out": out, "model": "faster_rcnn_lite0", "steps": 2, "classes": classes, "scratch": True}
    options = ["training.precision=fp32", "training.log_every=1", "training.validate_every=None"]
    voc = {"voc_boxes": "continuous"} if name == "voc" else {}
    outcome = finetune(twins / TWINS[name], **settings, **voc, batch_size=2, cfg_options=options, report=False)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    state = torch.load(outcome.trained(), weights_only=True)["model"]
    return state, next(line for line in lines if "loss" in line)


def test_twins_train_identical_weights(twins: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(sorted(read_twin(twins, "coco").classes)))
    expected, first = _train(twins, "coco", tmp_path / "coco", classes)
    for name in ("voc", "cvat", "labelme", "yolo"):
        state, line = _train(twins, name, tmp_path / name, classes)
        assert line["loss"] == pytest.approx(first["loss"], abs=1e-4 if name == "yolo" else 0)
        if name != "yolo":
            assert all(torch.equal(state[key], value) for key, value in expected.items())
