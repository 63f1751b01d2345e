"""Targets instead of a file: the same numbers as from a COCO JSON with the same objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tldet.errors import DataError
from tldet.evaluation.coco import CocoEvaluator
from tldet.evaluation.loading import load_ground_truth
from tldet.evaluation.targets import ground_truth_of
from tldet.structures.detections import Detections
from tldet.structures.target import Target

NAMES = ("a", "b")


def targets(count: int = 12, masks: bool = False) -> list[Target]:
    random = np.random.default_rng(3)
    made = []
    for image_id in range(1, count + 1):
        n = int(random.integers(0, 5))
        low = random.integers(0, 60, (n, 2))
        boxes = np.concatenate([low, low + random.integers(4, 40, (n, 2))], 1)
        drawn = np.zeros((n, 100, 100), np.uint8)
        for mask, (x0, y0, x1, y1) in zip(drawn, boxes, strict=True):
            mask[y0:y1, x0:x1] = 1
        target = Target(torch.tensor(boxes, dtype=torch.float32), torch.tensor(random.integers(0, 2, n)))
        target.ignore, target.image_id = torch.tensor(random.random(n) < 0.2), image_id
        target.masks = torch.tensor(drawn) if masks else None
        made.append(target)
    return made


def as_json(given: list[Target]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for target in given:
        for (x0, y0, x1, y1), label, crowd in zip(
            target.boxes.tolist(), target.labels.tolist(), target.ignore.tolist(), strict=True
        ):
            outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            rest = {"area": (x1 - x0) * (y1 - y0), "iscrowd": int(crowd), "segmentation": outline}
            one = {"id": len(annotations) + 1, "image_id": target.image_id, "category_id": label + 1}
            annotations.append({**one, "bbox": [x0, y0, x1 - x0, y1 - y0], **rest})
    images = [{"id": t.image_id, "height": 100, "width": 100, "file_name": f"{t.image_id}.png"} for t in given]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def found(target: Target, masks: bool) -> Detections:
    random = np.random.default_rng(target.image_id)
    n = len(target)
    boxes = target.boxes + torch.tensor(random.integers(0, 4, (n, 1)), dtype=torch.float32)
    return Detections(
        boxes, torch.tensor(random.random(n), dtype=torch.float32), target.labels, target.masks if masks else None
    )


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_same_numbers_as_from_a_file(engine: Any, kind: Any) -> None:
    masks = kind == "segm"
    given = targets(masks=masks)
    sizes = [(100, 100)] * len(given)
    truths = (
        ground_truth_of(given[::-1], NAMES, sizes=sizes, type=kind),
        load_ground_truth(as_json(given), kind),
    )
    results = []
    for truth in truths:
        evaluator = CocoEvaluator(truth, category_ids=[1, 2], engine=engine)
        evaluator.update(given[:5], [found(target, masks) for target in given[:5]])
        evaluator.update(given[5:], [found(target, masks) for target in given[5:]])
        results.append(evaluator.compute())
    assert results[0].numbers() == results[1].numbers()
    assert results[0].per_class == results[1].per_class
    assert results[0].AP > 0.2


def test_classes_that_are_not_annotated_do_not_count() -> None:
    target = Target(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([0]), image_id=1)
    target.labeled = torch.tensor([True, False])
    evaluator = CocoEvaluator(ground_truth_of([target], NAMES), category_ids=[1, 2])
    boxes = torch.tensor([[0.0, 0, 9, 9], [3, 3, 9, 9]])
    evaluator.update([target], [Detections(boxes, torch.tensor([0.5, 0.9]), torch.tensor([0, 1]))])
    assert pytest.approx(1.0) == evaluator.compute().AP
    assert evaluator.compute().unjudged == 1


def test_invalid_targets() -> None:
    twice = [Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2
    with pytest.raises(DataError, match="different image ids"):
        ground_truth_of(twice, NAMES)
    with pytest.raises(DataError, match="has no masks"):
        ground_truth_of([Target(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0]))], NAMES, type="segm")
