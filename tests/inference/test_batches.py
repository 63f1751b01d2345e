"""The detections of an image do not depend on the images predicted with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.models.test_detectors import RECIPES, detector
from tests.tools import with_slow
from tldet.data.dataset import CocoDataset
from tldet.data.eval_batches import by_padded_size, eval_batches
from tldet.data.loader import Sample
from tldet.engine.precision import Precision
from tldet.inference.predictor import Predictor
from tldet.runtime.images import padded_size
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray
from tldet.structures.target import Target

SIZES = [
    (48, 80),
    (96, 40),
    (60, 61),
    (33, 120),
    (48, 80),
    (64, 64),
    (100, 30),
    (47, 79),
    (120, 33),
    (60, 61),
    (50, 80),
]
SCORE, PIXELS = 1e-4, 0.02  # how near the same detection is


def images() -> list[ImageArray]:
    """Smooth noise of several shapes."""
    random = np.random.default_rng(5)
    coarse = [random.integers(0, 256, (h // 8 + 1, w // 8 + 1, 3), np.uint8) for h, w in SIZES]
    return [
        np.asarray(cv2.resize(one, (w, h), interpolation=cv2.INTER_CUBIC), np.uint8)
        for one, (h, w) in zip(coarse, SIZES, strict=True)
    ]


def lively(recipe: str) -> Predictor:
    """A detector of random weights whose maps do not vanish, so that scores and boxes differ from place to place."""
    model = detector(recipe)
    generator = torch.Generator().manual_seed(3)
    for p in model.parameters():
        if p.ndim > 1:
            p.data.normal_(0, (1.6 / p[0].numel()) ** 0.5, generator=generator)
    for name, p in model.head.named_parameters():
        if name.endswith("bias"):
            p.data.normal_(0, 0.05, generator=generator)  # one-stage heads begin with low scores
    return Predictor(model, [1, 2, 3], short=64, long=96, precision=Precision())


def distant(one: Detections, other: Detections) -> int:
    """The number of detections that one has and the other has not, or not in that place and with that score."""
    near = torch.cdist(one.boxes, other.boxes, p=float("inf")) < PIXELS
    close = (one.scores[:, None] - other.scores).abs() < SCORE
    same = near & close & (one.labels[:, None] == other.labels)
    return int((~same.any(1)).sum() + (~same.any(0)).sum())


@pytest.mark.parametrize("recipe", with_slow(RECIPES, ["cascade_mask_rcnn_lite0"]))
def test_an_image_alone_and_in_any_list(recipe: str) -> None:
    predictor, given = lively(recipe), images()
    alone = [predictor.predict(image, 0.0) for image in given]
    assert all(len(found) >= 3 for found in alone)
    assert alone[0].scores.std() > 0.01
    orders = [np.arange(len(given)), np.random.default_rng(1).permutation(len(given))]
    for order, batch in [(orders[0], 4), (orders[1], 3), (orders[1], 8)]:
        together = predictor.predict([given[number] for number in order], 0.0, batch)
        assert [distant(alone[number], found) for number, found in zip(order, together, strict=True)] == [0] * len(
            given
        )


def sample(height: int, width: int) -> Sample:
    target = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return Sample(torch.zeros(3, height, width, dtype=torch.uint8), target, (height, width))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 50])
@pytest.mark.parametrize("waiting", [1, 5, 1000])
def test_groups_are_of_one_padded_size_and_hold_every_sample_once(batch_size: int, waiting: int) -> None:
    random = np.random.default_rng(batch_size)
    sizes = [(int(h), int(w)) for h, w in random.integers(1, 130, (60, 2))]
    taken = 0

    def read() -> Iterator[Sample]:
        nonlocal taken
        for size in sizes:
            taken += 1
            yield sample(*size)

    given = 0
    seen: list[int] = []
    for group in by_padded_size(read(), batch_size, waiting):
        assert len({padded_size(sizes[number]) for number, _ in group}) == 1
        assert len(group) <= batch_size
        assert taken - given <= waiting
        given += len(group)
        seen += [number for number, _ in group]
    assert sorted(seen) == list(range(60))


def test_few_batches_are_not_full() -> None:
    """Images of two shapes in turn make full batches, in the order in which these become full."""
    samples = [sample(60, 90) if number % 2 else sample(90, 60) for number in range(16)]
    groups = [[number for number, _ in group] for group in by_padded_size(samples, 4, 16)]
    assert groups == [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]]


def test_a_batch_of_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="batch must be at least 1, not 0"):
        lively("fcos_lite0").predict(images(), batch=0)


@pytest.mark.parametrize("score", [2, -0.1, float("nan")])
def test_an_impossible_score_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match="score must be from 0 to 1, not"):
        lively("fcos_lite0").predict(images(), score)


RESIZED = [{"type": "Resize", "short": 40, "long": 80}]
CROPPED = [*RESIZED, {"type": "RandomCrop", "p": 1.0}]


@pytest.mark.parametrize("steps", [[], RESIZED, CROPPED], ids=["as stored", "resized", "cropped"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_evaluation_batches_are_of_one_padded_size(
    steps: list[dict[str, object]], workers: int, tmp_path: Path
) -> None:
    records = []
    for number, image in enumerate(images() * 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        records.append({"id": number, "file_name": f"{number}.png", "height": image.shape[0], "width": image.shape[1]})
    whole = {"images": records, "annotations": [], "categories": [{"id": 1, "name": "bar"}]}
    (tmp_path / "a.json").write_text(json.dumps(whole), encoding="utf-8")
    data = CocoDataset(str(tmp_path / "a.json"), str(tmp_path), steps)
    batches = list(eval_batches(data, 3, workers=workers))
    assert all(padded_size(size) == batch.images.shape[-2:] for batch in batches for size in batch.sizes)
    assert all(len(batch) <= 3 for batch in batches)
    assert sorted(i for batch in batches for i in batch.image_ids) == list(range(len(records)))
    shapes = [tuple(batch.images.shape[-2:]) for batch in batches]
    if steps is not CROPPED:  # known beforehand: every batch but the last of each shape is full
        assert sum(len(batch) < 3 for batch in batches) <= len(set(shapes))
