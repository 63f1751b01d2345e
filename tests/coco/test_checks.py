"""Boxes that are not [x, y, width, height] in pixels are refused or reported, right ones are not."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.cli.main import main
from tldet.coco.checks import require_coco_boxes
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.merge.source import read_merge_source
from tldet.errors import DataError
from tldet.evaluation.coco import evaluate_files

H, W = 480, 640
RANDOM = np.random.default_rng(0)


def right(count: int) -> np.ndarray[Any, Any]:
    """(N, 4) boxes [x, y, width, height] inside an image of 640 x 480."""
    sides = RANDOM.uniform(4, 200, (count, 2))
    return np.concatenate([RANDOM.uniform(0, 1, (count, 2)) * ([W, H] - sides), sides], 1)


def corners(boxes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


SCALE = np.array([W, H, W, H])
NORMALIZED, CORNERS = "they seem to be normalized", "seem to be corners [x0, y0, x1, y1]"
REFUSED = [
    (right(40) / SCALE, NORMALIZED),
    (corners(right(40)) / SCALE, NORMALIZED),
    ((right(40) + np.array([50, 50, 0, 0])).clip(max=SCALE) / SCALE, NORMALIZED),
    (right(3) / SCALE, NORMALIZED),
    (corners(right(40)), CORNERS),
    (corners(right(400)), CORNERS),
    (np.concatenate([corners(right(40)), [[600.0, 400, W + 30, H]]]), CORNERS),
    (np.concatenate([corners(right(40)), [[300.0, 300, 200, 200]]]), CORNERS),
]
WARNED = [
    (right(2) / SCALE, "seem to be normalized"),
    (np.concatenate([right(40), right(5) / SCALE]), "5 of 45 boxes lie within 0..1 and may be normalized"),
    (np.array([[300.0, 200, 500, 400]]), CORNERS),
]
GOOD = [
    right(40),
    right(1),
    np.tile([[0.0, 0, W, H]], (20, 1)),
    np.tile([[2.0, 2, W, H]], (20, 1)),
    np.tile([[0.0, 0, 0, 0]], (20, 1)),
    np.array([[600.0, 440, 60, 60]] * 20),
    np.concatenate([right(40), [[0, 0, 1.5, 0.9]]]),
]


def dataset(boxes: np.ndarray[Any, Any]) -> dict[str, Any]:
    rows = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 1, "bbox": box, "area": 100, "iscrowd": 0}
        for n, box in enumerate(boxes.tolist(), start=1)
    ]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": W, "height": H} for n in (1, 2)]
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "x"}]}


def results(boxes: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    return [{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": box} for box in boxes.tolist()]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("boxes", "expected"), REFUSED, ids=range(len(REFUSED)))
def test_another_format_is_refused_in_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], boxes: Any, expected: str
) -> None:
    wrong, found = tmp_path / "wrong.json", tmp_path / "found.json"
    wrong.write_text(json.dumps(dataset(boxes)))
    found.write_text(json.dumps(results(boxes)))
    good = tmp_path / "good.json"
    good.write_text(json.dumps(dataset(right(40))))
    for read in (AnnotationIndex.load, lambda path: read_merge_source(Split(path, tmp_path))):
        with pytest.raises(DataError) as raised:
            read(wrong)
        assert expected in str(raised.value)
    for gt, dt, named in ((wrong, found, wrong), (good, found, found)):
        assert main(["evaluate", "--gt", str(gt), "--dt", str(dt)]) == 2
        message = capsys.readouterr().err.strip()
        assert message.startswith(f"tldet evaluate: error: {named}: ")
        assert expected in message
        assert "\n" not in message


def test_normalized_boxes_on_images_of_unknown_size() -> None:
    sizes = np.zeros((40, 2), np.int64)
    with pytest.raises(DataError, match=NORMALIZED):
        require_coco_boxes("a.json", "boxes", right(40) / SCALE, sizes)
    assert require_coco_boxes("a.json", "boxes", right(40), sizes) == []


@pytest.mark.parametrize(("boxes", "expected"), WARNED, ids=range(len(WARNED)))
def test_few_boxes_of_another_format_are_reported(caplog: pytest.LogCaptureFixture, boxes: Any, expected: str) -> None:
    with caplog.at_level(logging.WARNING, "tldet"):
        evaluate_files(dataset(boxes), [])
    assert expected in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tldet"):
        evaluate_files(dataset(right(5)), results(boxes))
    assert expected in caplog.text


@pytest.mark.parametrize("boxes", GOOD, ids=range(len(GOOD)))
def test_right_boxes_pass(boxes: Any) -> None:
    sizes = np.tile([[H, W]], (len(boxes), 1))
    assert require_coco_boxes("x", "boxes", boxes, sizes, boxes[:, 2:].prod(1)) == []
    assert require_coco_boxes("x", "boxes", boxes, sizes, np.full(len(boxes), np.nan)) == []
    assert require_coco_boxes("x", "boxes", boxes, np.zeros_like(sizes)) == []


def test_areas_identify_corners_near_the_origin() -> None:
    boxes = corners(right(40) * [0.1, 0.1, 0.5, 0.5])
    sizes = np.tile([[H, W]], (len(boxes), 1))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    assert require_coco_boxes("x", "boxes", boxes, sizes) == []
    with pytest.raises(DataError, match="every 'area' fits corners only"):
        require_coco_boxes("x", "boxes", boxes, sizes, areas)


def test_tiny_images_may_have_boxes_of_a_pixel() -> None:
    boxes = np.tile([[0.0, 0, 1, 1]], (20, 1))
    assert require_coco_boxes("x", "boxes", boxes, np.full((20, 2), 8)) == []


@pytest.mark.parametrize("split", ["train", "val", "test", "coco_mini"])
def test_real_data_pass(shared: Path, split: str) -> None:
    folder = shared / "data"
    mini = folder / "coco_mini/annotations/instances_val2017.json"
    index = AnnotationIndex.load(mini if split == "coco_mini" else folder / "bccd" / "coco" / f"{split}.json")
    assert not [line for line in index.notes if "normalized" in line or "corners" in line]
