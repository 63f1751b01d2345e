"""Transforms of several images: boxes and masks stay on their objects, and further images are drawn by the seed."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tldet.data.custom_dataset import CustomDataset
from tldet.data.loader import BatchOrder, SampleKey, train_batches
from tldet.data.masks import mask_boxes
from tldet.data.mixing import CopyPaste
from tldet.data.presets import PRESETS, preset
from tldet.data.settings import DatasetOptions
from tldet.data.transforms import Draws, LabeledSample, Pipeline
from tldet.errors import ConfigError, DataError
from tldet.structures.target import Target

SIZES = [(96, 120), (120, 96), (80, 80), (60, 140)]
BACKGROUND = (0, 0, 255)  # objects have blue 0, and their own red


def red(row: int) -> int:
    return 30 + 25 * row


def scene(seed: int, number: int, size: tuple[int, int], *, masks: bool = True) -> LabeledSample:
    """Two ellipses apart from each other, in colors of their own; rows and labels are 2 * number and the next."""
    random, rows = np.random.default_rng([seed, number]), 2 * number + np.arange(2)
    drawn = np.ones((2, *size), np.uint8)
    while drawn.all(0).any():
        drawn[:] = 0
        for mask in drawn:
            center = [int(random.integers(15, side - 15)) for side in size[::-1]]
            cv2.ellipse(mask, center, random.integers(8, 20, 2).tolist(), 0, 0, 360, 1, -1)
    image = np.full((*size, 3), BACKGROUND, np.uint8)
    for mask, row in zip(drawn, rows.tolist(), strict=True):
        image[mask > 0] = (red(row), 0, 0)
    return LabeledSample(image, mask_boxes(drawn), rows, np.zeros(2, np.bool_), drawn if masks else None, labels=rows)


def run(step: dict[str, Any], seed: int, *, masks: bool = True) -> LabeledSample:
    pipeline = Pipeline([step])
    count = len(pipeline.draw_extra((seed,), 4))
    samples = [scene(seed, number, SIZES[(seed + number) % 4], masks=masks) for number in range(1 + count)]
    return pipeline(samples[0], (seed,), (seed,), samples[1:])


def assert_aligned(found: LabeledSample, gap: float = 1.0) -> None:
    assert found.masks is not None
    assert found.labels is not None
    assert found.masks.shape == (len(found.boxes), *found.image.shape[:2])
    assert found.labels.tolist() == found.rows.tolist()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    for mask, box, around in zip(found.masks, found.boxes, mask_boxes(found.masks), strict=True):
        if mask.any():
            assert np.abs(box - around).max() <= gap + 1e-3


@pytest.mark.parametrize(
    "step", [{"type": "Mosaic", "p": 1.0}, {"type": "CopyPaste", "p": 1.0}], ids=lambda step: step["type"]
)
@pytest.mark.parametrize("seed", range(25))
def test_boxes_masks_and_pixels_agree(step: dict[str, Any], seed: int) -> None:
    found = run(step, seed)
    assert found.image.shape[:2] == SIZES[seed % 4]
    assert_aligned(found)
    assert found.masks is not None
    for row, mask in zip(found.rows.tolist(), found.masks, strict=True):
        inside = cv2.erode(mask, np.ones((5, 5), np.uint8), borderValue=0) > 0
        assert (np.abs(found.image[inside][:, 0].astype(int) - red(row)) <= 2).all(), row
    objects = found.image[..., 2] < 60
    assert (objects & ~found.masks.any(0)).sum() <= 0.05 * objects.sum()
    assert found.masks.sum(0).max() <= 1, "the objects do not cover each other"


@pytest.mark.parametrize("seed", range(8))
def test_boxes_without_masks_lie_around_their_objects(seed: int) -> None:
    found = run({"type": "Mosaic", "p": 1.0}, seed, masks=False)
    assert found.masks is None
    (height, width), inside = found.image.shape[:2], np.zeros(found.image.shape[:2], bool)
    for x0, y0, x1, y1 in found.boxes.tolist():
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    assert not (~inside & (found.image[..., 2] < 30)).any()


@pytest.mark.parametrize("seed", range(6))
def test_mixup_blends_pixels_and_keeps_both_objects(seed: int) -> None:
    found, first = run({"type": "MixUp", "weight": [0.5, 0.5], "p": 1.0}, seed), scene(seed, 0, SIZES[seed % 4])
    assert_aligned(found)
    count = len(first.boxes)
    assert np.array_equal(found.boxes[:count], first.boxes)
    assert len(found.boxes) > count
    assert found.masks is not None
    other = found.masks[count:].any(0) & ~found.masks[:count].any(0)
    other = cv2.erode(other.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    expected = (np.array(BACKGROUND, float) + 0) / 2
    assert (np.abs(found.image[other][:, 1:] - expected[1:]) <= 1).all()
    assert set(found.image[other][:, 0].tolist()) <= {red(row) // 2 + up for row in (2, 3) for up in (0, 1)}


def test_pasted_objects_cover_others() -> None:
    first, other = scene(0, 0, (40, 60)), scene(0, 1, (40, 60))
    for sample, (x0, y0, x1, y1) in ((first, (10, 10, 50, 30)), (other, (30, 10, 50, 30))):
        sample.masks = np.zeros((2, 40, 60), np.uint8)
        sample.masks[0, y0:y1, x0:x1] = 1
        sample.boxes = np.array([[x0, y0, x1, y1], [1, 1, 5, 5]], np.float32)
    draws = Draws(np.random.default_rng(0), np.random.default_rng(0))
    found = CopyPaste(fraction=1.0, p=1.0, least_visible=0.6)(first, draws, [other])
    assert found.boxes.tolist() == [[10, 10, 30, 30], [1, 1, 5, 5], [30, 10, 50, 30]]  # one has a box only
    assert found.ignore.tolist() == [True, False, False]  # half of it is left
    assert found.masks is not None
    assert found.masks.sum((1, 2)).tolist() == [400, 0, 400]
    with pytest.raises(DataError, match=r"CopyPaste needs masks; set data.train.masks=True"):
        run({"type": "CopyPaste", "p": 1.0}, 0, masks=False)


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str, masks: bool) -> None:
    pipeline = Pipeline([{"type": "Resize", "short": 64, "long": 96}, *preset(name, masks=masks)])
    changed = 0
    for seed in range(12):
        extra = pipeline.draw_extra((seed,), 4)
        samples = [scene(seed, number, SIZES[number % 4], masks=masks) for number in range(1 + len(extra))]
        found, again = (pipeline(samples[0], (seed,), (seed,), samples[1:]) for _ in range(2))
        assert np.array_equal(found.image, again.image)
        assert found.image.dtype == np.uint8
        assert max(found.image.shape[:2]) <= 96
        if masks:
            assert_aligned(found, gap=2.0)  # resampled up to three times
        height, width = found.image.shape[:2]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, height, width, height]).all()
        plain = Pipeline([{"type": "Resize", "short": 64, "long": 96}])(samples[0], (seed,), (seed,))
        changed += not (found.image.shape == plain.image.shape and np.array_equal(found.image, plain.image))
    assert changed >= {"none": 0, "light": 4, "standard": 8, "strong": 10}[name]
    assert changed == 0 or name != "none"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "Mosaic", "scale": [1.0, 0.5]}, "scale must be two numbers in ascending order"),
        ({"type": "Mosaic", "center": [0.3, 1.2]}, "center must be at least 0 and at most 1"),
        ({"type": "MixUp", "p": 1.5}, "p must be at least 0 and at most 1"),
        ({"type": "LargeScaleJitter", "scale": [0, 1]}, "scale must be above 0"),
        ({"type": "CopyPaste", "fraction": -1}, "fraction must be at least 0"),
    ],
)
def test_values_out_of_range(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline([step])


class Images:
    """Eight images of one gray level each with one box, and the number of loads."""

    class_names = ("a",)
    sizes = ((40, 60),) * 8
    loaded = 0

    def __len__(self) -> int:
        return 8

    def target(self, index: int) -> Target:
        return Target(torch.tensor([[2.0, 3.0, 50.0, 30.0]]), torch.tensor([0]))

    def load(self, index: int) -> tuple[Any, Target]:
        self.loaded += 1
        return np.full((40, 60, 3), 10 * index, np.uint8), self.target(index)


def data_of(p: float) -> CustomDataset:
    steps = [{"type": "Mosaic", "p": p}, {"type": "MixUp", "p": p}]
    return CustomDataset(Images(), DatasetOptions(transforms=steps), name="own")


def test_further_images_are_loaded_only_if_they_are_needed() -> None:
    never, often = data_of(0.0), data_of(0.5)
    samples = [[data[SampleKey(epoch, 3, 0)] for epoch in range(40)] for data in (never, often)]
    assert never.dataset.loaded == 40  # type: ignore[attr-defined]
    assert {float(one.image.float().mean()) for one in samples[0]} == {30.0}
    loads = often.dataset.loaded - 40  # type: ignore[attr-defined]
    assert 40 <= loads <= 120, "of 40 samples, half with 3 further images and half with 1"
    mixed = [len(one.image.unique()) > 1 for one in samples[1]]
    assert 10 <= sum(mixed) <= 30, "MixUp of two gray images is a gray image"


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_do_not_depend_on_the_first_step_or_workers(workers: int) -> None:
    data = data_of(0.7)
    order = BatchOrder(data.sizes, 2, seed=5)
    whole, resumed = train_batches(data, order), train_batches(data, order, start=3, workers=workers)
    expected = [next(whole) for _ in range(8)][3:]
    for one in expected:
        other = next(resumed)
        assert torch.equal(one.images, other.images)
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(one.targets, other.targets, strict=True))
    assert not torch.equal(expected[0].images, expected[4].images)
