"""Images with the most errors: their order, and what the gallery of a page shows of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.evaluation.errors.made import results_of, truth_of
from tldet.evaluation.errors.analysis import analyze
from tldet.evaluation.errors.assign import assign_error_types
from tldet.evaluation.errors.images import image_counts, image_errors, image_f1, worst_images
from tldet.workflows.report.images import gallery_images

BOX = (100.0, 100.0, 50.0, 50.0)
LOOSE = (125.0, 100.0, 50.0, 50.0)  # IoU 1/3
FAR = (400.0, 300.0, 50.0, 50.0)
# For each image with one object of class 0 at BOX: class, box and score of its detections.
DETECTIONS: tuple[list[tuple[int, tuple[float, ...], float]], ...] = (
    [(0, BOX, 0.9)],  # 0: correct
    [(0, BOX, 0.9), (1, FAR, 0.8)],  # 1: a false positive, 0.8
    [],  # 2: a miss, 1
    [(1, BOX, 0.7)],  # 3: wrong class, 0.7, and a miss, 1
    [(0, LOOSE, 0.6)],  # 4: loose, 0.6, and a miss, 1
    [(0, BOX, 0.9), (0, BOX, 0.55)],  # 5: a duplicate, 0.55
    [(0, BOX, 0.3), (1, FAR, 0.2)],  # 6: correct below the threshold, 1
)


def made() -> Any:
    count = len(DETECTIONS)
    truth = truth_of(np.arange(count), np.zeros(count, int), np.array([BOX] * count), count)
    rows = [(image, *one) for image, found in enumerate(DETECTIONS) for one in found]
    images, categories, boxes, scores = zip(*rows, strict=True)
    return truth, results_of(images, categories, boxes, scores)


def test_the_worst_images_come_first() -> None:
    assigned = assign_error_types(*made())
    assert image_errors(assigned, 0.5) == pytest.approx([0, 0.8, 1, 1.7, 1.6, 0.55, 1])
    assert worst_images(assigned, 0.5, 10).tolist() == [3, 4, 2, 6, 1, 5]
    assert worst_images(assigned, 0.5, 2).tolist() == [3, 4]
    assert worst_images(assigned, 0.25, 10).tolist() == [3, 4, 2, 1, 5], "image 6 is correct"
    hits, false, missed = image_counts(assigned, 0.5)
    assert (hits.tolist(), false.tolist(), missed.tolist()) == (
        [1, 1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0, 1],
    )  # fmt: skip
    assert image_f1(assigned, 0.5) == pytest.approx([1, 2 / 3, 0, 0, 0, 2 / 3, 0])


def test_what_the_gallery_shows_of_them() -> None:
    found = analyze(*made())
    images = gallery_images([found], range(len(DETECTIONS)), lambda _: None)
    assert [[(row[4], row[5], row[6]) for row in image.detections[0]] for image in images] == [
        [(0, 0.9, "Hit")],
        [(0, 0.9, "Hit"), (1, 0.8, "Bkg")],
        [],
        [(1, 0.7, "Cls")],
        [(0, 0.6, "Loc")],
        [(0, 0.9, "Hit"), (0, 0.55, "Dupe")],
        [(0, 0.3, "Hit"), (1, 0.2, "Bkg")],
    ]
    assert [image.found for image in images] == [[[0.9]], [[0.9]], [[-1]], [[-1]], [[-1]], [[0.9]], [[0.3]]]
    assert [image.objects for image in images] == [[(*BOX, 0, -1, "", "")]] * len(DETECTIONS)
    assert (images[0].width, images[0].height, images[0].source) == (640, 480, "")
