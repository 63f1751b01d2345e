"""A detector trained on digits: its AP, and the small objects that it finds only with tiles on 12 megapixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

import tldet
from tldet.data.digit_scenes import Stamp, load_photos, load_stamps, paste, random_background
from tldet.data.digits import generate
from tldet.runtime.images import fitted_size
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray
from tldet.workflows.test import test as evaluate
from tldet.workflows.training.finetune import finetune

SIZE = (3000, 4000)
SIDES = (44, 110)  # pixels of the digits
NMS = 0.5  # IoU threshold of NMS in the recipe
SMALL = 16  # pixels at the resolution of the network
TILES = 320


def scene(count: int) -> tuple[ImageArray, torch.Tensor, torch.Tensor]:
    """Test digits on a test photograph, with their boxes and labels; none touches another."""
    random = np.random.default_rng(4)
    stamps = load_stamps("test")
    image = random_background(load_photos("test"), random, SIZE)
    boxes: list[list[int]] = []
    labels: list[int] = []
    while len(boxes) < count:
        stamp = stamps[int(random.integers(len(stamps)))]
        side = int(random.integers(*SIDES))
        large = np.clip(cv2.resize(stamp.cover, (side, side), interpolation=cv2.INTER_CUBIC) * 1.5 - 0.15, 0, 1)
        rows, columns = np.where(large.max(1) > 0.05)[0], np.where(large.max(0) > 0.05)[0]
        cut = Stamp(stamp.label, large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        height, width = cut.cover.shape
        y, x = int(random.integers(SIZE[0] - height + 1)), int(random.integers(SIZE[1] - width + 1))
        box = [x, y, x + width, y + height]
        if all(box[0] > b[2] + 8 or b[0] > box[2] + 8 or box[1] > b[3] + 8 or b[1] > box[3] + 8 for b in boxes):
            paste(image, cut.cover.astype(np.float32), x, y, random.integers(0, 256, 3))
            boxes.append(box)
            labels.append(cut.label)
    return image, torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels)


def recall(found: Detections, boxes: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of the objects with a detection of their class and an IoU of at least 0.5."""
    same = (box_iou(boxes, found.boxes) >= 0.5) & (labels[:, None] == found.labels)
    return float(same.any(1).float().mean())


def repeated(found: Detections, boxes: torch.Tensor) -> int:
    """Number of detections that overlap a better one of their class on the same object.

    Two boxes on one object with an IoU below the threshold of NMS are both reported without tiles, too.
    """
    best, rows = box_iou(found.boxes, boxes).max(1)
    same = (rows[:, None] == rows) & (found.labels[:, None] == found.labels) & (best >= 0.5) & (best >= 0.5)[:, None]
    close = box_iou(found.boxes, found.boxes) >= NMS
    return int((same & close).triu(1).any(0).sum())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a detector that was trained for two minutes."""
    folder = tmp_path_factory.mktemp("trained")
    data = generate(folder / "digits", train=200, valid=20, test=40, size=(160, 224))
    options = ["data.train.transforms.1.p=0.0", "training.validate_every=100"]
    outcome = finetune(data, out=folder / "run", steps=200, cfg_options=options, report=False)
    assert outcome.result is not None
    return outcome.checkpoint


@pytest.mark.slow
def test_fine_tuning_reaches_its_ap(trained: Path) -> None:
    assert evaluate(trained).numbers()["AP50"] > 0.5


@pytest.mark.slow
def test_tiles_find_small_objects(trained: Path) -> None:
    image, boxes, labels = scene(200)
    plain, tiled = tldet.load(trained), tldet.load(trained, tiles=TILES)
    scale = fitted_size(SIZE, plain.short, plain.long)[0] / SIZE[0]
    assert float((boxes[:, 2:] - boxes[:, :2]).max() * scale) < SMALL
    found, before = tiled.predict(image), plain.predict(image)
    with_tiles, without = recall(found, boxes, labels), recall(before, boxes, labels)
    print(f"recall {with_tiles:.3f} with tiles, {without:.3f} without; {len(found)} detections")  # noqa: T201
    assert with_tiles >= 0.6
    assert with_tiles >= 5 * without
    assert repeated(found, boxes) == 0
