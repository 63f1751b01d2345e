"""AP by size, aspect ratio and crowding: by pycocotools and by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.errors.made import CLASSES, IMAGES, results_of, truth_of
from tldet.evaluation.columns import GroundTruth, Results
from tldet.evaluation.engines import precision_recall
from tldet.evaluation.errors.assign import assign_error_types
from tldet.evaluation.errors.attributes import CROWDING, RATIOS, SIZES, by_aspect_ratio, by_crowding, by_size
from tldet.evaluation.loading import load_ground_truth, load_results
from tldet.structures import rle


def varied() -> tuple[GroundTruth, Results]:
    """Objects of many sizes and shapes, and detections that are off by a tenth of them, with classes mixed up."""
    random = np.random.default_rng(3)
    count = IMAGES * 8
    sides = np.exp(random.uniform(np.log(8), np.log(450), (count, 2)))
    boxes = np.concatenate([random.uniform(0, 300, (count, 2)), sides], 1)
    truth = truth_of(np.repeat(np.arange(IMAGES), 8), random.integers(0, CLASSES, count), boxes)
    rows = np.flatnonzero(random.random(count) < 0.9)
    found = boxes[rows] + random.normal(0, 0.1, (len(rows), 4)) * sides[rows][:, [0, 1, 0, 1]]
    categories = np.where(random.random(len(rows)) < 0.9, truth.categories[rows], 0)
    return truth, results_of(truth.images[rows], categories, np.maximum(found, 1), random.random(len(rows)))


def real(shared: Path) -> tuple[GroundTruth, Results]:
    root = shared / "data"
    truth = load_ground_truth(root / "coco_mini" / "annotations" / "instances_val2017.json", "bbox", quiet=True)
    return truth, load_results(root / "eval" / "coco_mini_detector" / "dets_bbox.json", truth)


def pycocotools(truth: GroundTruth, results: Results, ranges: Any) -> list[tuple[float, float, float]]:
    """Return AP, AP50 and AR in ranges of the areas, with the reference implementation."""
    labels = [str(number) for number in range(len(ranges))]
    given = {"areaRng": [list(ends) for ends in ranges], "areaRngLbl": labels, "maxDets": [100]}
    precision, recall = precision_recall(truth, results, "pycocotools", **given)
    values = []
    for r in range(len(ranges)):
        parts = (precision[..., r, 0], precision[0, :, :, r, 0], recall[..., r, 0])
        values.append(tuple(float(one[one > -1].mean()) if (one > -1).any() else -1.0 for one in parts))
    return values  # type: ignore[return-value]


def equal(found: Any, expected: list[tuple[float, float, float]]) -> None:
    assert np.column_stack([found.ap, found.ap50, found.ar]) == pytest.approx(np.array(expected), abs=1e-9)


@pytest.mark.parametrize("source", ["made", "real"])
def test_sizes_are_areas_of_pycocotools(source: str, request: pytest.FixtureRequest) -> None:
    truth, results = varied() if source == "made" else real(request.getfixturevalue("shared"))
    found = by_size(assign_error_types(truth, results))
    equal(found, pycocotools(truth, results, [(low**2, high**2) for _, low, high in SIZES]))
    assert (found.ap > 0).all()
    assert found.objects.sum() == (~truth.crowd).sum()
    sides = np.sqrt(truth.areas[~truth.crowd])
    assert found.objects.tolist() == [int(((sides >= low) & (sides <= high)).sum()) for _, low, high in SIZES]


@pytest.mark.parametrize("source", ["made", "real"])
def test_aspect_ratios_in_place_of_areas(source: str, request: pytest.FixtureRequest) -> None:
    truth, results = varied() if source == "made" else real(request.getfixturevalue("shared"))
    found = by_aspect_ratio(assign_error_types(truth, results))
    assert found.objects.sum() >= (~truth.crowd).sum()  # a value on a border counts twice, as in COCO
    truth = replace(truth, areas=truth.boxes[:, 2] / truth.boxes[:, 3])
    results = replace(results, areas=results.boxes[:, 2] / results.boxes[:, 3])
    equal(found, pycocotools(truth, results, [(low, high) for _, low, high in RATIOS]))


def crowded() -> tuple[GroundTruth, Results]:
    """One alone, two with an IoU of 1/3 (each other's half), two with an IoU of 1/9; each detected but the last."""
    boxes = np.array(
        [[0.0, 0, 100, 100], [200, 0, 100, 100], [250, 0, 100, 100], [0, 200, 100, 100], [80, 200, 100, 100]]
    )
    truth = truth_of(np.zeros(5, int), np.zeros(5, int), boxes, 1)
    return truth, results_of([0] * 4, [0] * 4, boxes[:4], [0.9, 0.8, 0.7, 0.6])


def test_crowding_by_hand() -> None:
    found = by_crowding(assign_error_types(*crowded()))
    assert found.names == [name for name, _, _ in CROWDING]
    assert found.objects.tolist() == [1, 0, 2, 2]
    assert found.ap.tolist() == pytest.approx([1, -1, 51 / 101, 1])  # 51 of COCO's recalls are at most 0.5
    assert found.ar.tolist() == pytest.approx([1, -1, 0.5, 1])


def test_crowding_of_masks_is_that_of_their_boxes() -> None:
    """Two masks side by side do not overlap, but their boxes do; so does a false positive with half of a mask."""
    triangles = [[[0.0, 0, 100, 0, 0, 100]], [[100.0, 0, 100, 100, 0, 100]]]
    common = {"image_id": 0, "category_id": 0}
    objects = [
        {**common, "id": n, "bbox": [0, 0, 100, 100], "area": 5000, "iscrowd": 0, "segmentation": one}
        for n, one in enumerate(triangles, 1)
    ]
    categories = [{"id": 0, "name": "a"}]
    image = {"id": 0, "width": 640, "height": 480}
    truth = load_ground_truth({"images": [image], "categories": categories, "annotations": objects}, "segm")
    small = [[0.0, 0, 100, 0, 0, 45]]  # IoU 0.45 with one mask, and its box with both boxes
    found = [
        {**common, "score": 0.9 - n / 10, "segmentation": to_rle(one)} for n, one in enumerate([small, *triangles])
    ]
    one = by_crowding(assign_error_types(truth, load_results(found, truth)))
    assert one.objects.tolist() == [0, 0, 0, 2]
    assert one.ap50[3] == pytest.approx(2 / 3), "the detection of the best score is a false positive of this range"


def to_rle(polygons: Any) -> Any:
    encoded = rle.to_rle(polygons, (480, 640))
    return {**encoded, "counts": encoded["counts"].decode()} if isinstance(encoded["counts"], bytes) else encoded
