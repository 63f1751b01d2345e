"""Datasets with planted errors."""

from typing import Any

import numpy as np

from tldet.evaluation.columns import GroundTruth, Results

IMAGES, CLASSES, SIDE = 40, 3, 50.0


def truth_of(images: Any, categories: Any, boxes: Any, count: int = IMAGES, crowd: Any = None) -> GroundTruth:
    """Return the ground truth of images of 640 x 480 pixels."""
    areas = boxes[:, 2] * boxes[:, 3]
    return GroundTruth(
        name="made",
        type="bbox",
        image_ids=list(range(count)),
        sizes=[(480, 640)] * count,
        category_ids=list(range(CLASSES)),
        class_names=["a", "b", "c"],
        images=images,
        categories=categories,
        boxes=boxes,
        areas=areas,
        crowd=np.zeros(len(images), np.bool_) if crowd is None else crowd,
        segmentations=None,
    )


def results_of(images: Any, categories: Any, boxes: Any, scores: Any) -> Results:
    """Return detections."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return Results(
        np.asarray(images, np.int64),
        np.asarray(categories, np.int64),
        boxes,
        np.asarray(scores, np.float64),
        boxes[:, 2] * boxes[:, 3],
        None,
    )


def grid_truth(count: int = IMAGES) -> GroundTruth:
    """Return objects that do not overlap, 12 on an image, at places that differ between images."""
    random = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(4) * 150.0 + 20, np.arange(3) * 150.0 + 20)
    corners = np.tile(np.stack([x.ravel(), y.ravel()], 1), (count, 1)) + random.uniform(0, 20, (count * 12, 2))
    boxes = np.concatenate([corners, np.full_like(corners, SIDE)], 1)
    return truth_of(np.repeat(np.arange(count), 12), random.integers(0, CLASSES, count * 12), boxes, count)


def perfect(truth: GroundTruth) -> Results:
    """Return a detection on each object, of a score that depends on its row."""
    scores = np.random.default_rng(6).uniform(0.5, 1, len(truth.images))
    return results_of(truth.images, truth.categories, truth.boxes, scores)


def noisy(truth: GroundTruth, seed: int, spread: float) -> Results:
    """Return a detection on most objects, with corners off by ``spread`` of the side."""
    random = np.random.default_rng(seed)
    rows = np.flatnonzero(random.random(len(truth.images)) < 0.9)
    boxes = truth.boxes[rows].copy()
    boxes[:, :2] += random.normal(0, spread * SIDE, (len(rows), 2))
    return results_of(truth.images[rows], truth.categories[rows], boxes, random.random(len(rows)))
