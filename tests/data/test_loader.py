"""Order, augmentation and batches are functions of (seed, epoch, position) alone."""

from __future__ import annotations

import json
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch

from tests import forked
from tldet.data.dataset import CocoDataset
from tldet.data.eval_batches import eval_batches
from tldet.data.loader import BatchOrder, SampleKey, train_batches
from tldet.data.settings import LoaderSettings
from tldet.errors import ConfigError, DataError
from tldet.structures.batch import Batch

STEPS = [
    {"type": "Resize", "short": [40, 48], "long": 80},
    {"type": "HorizontalFlip", "p": 0.5},
    {"type": "RandomCrop", "p": 0.5},
    {"type": "ColorJitter", "p": 0.5},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine images; object n is a bright rectangle exactly in its box, its mask the same rectangle."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(9):
        height, width = (60, 90) if i % 3 else (90, 60)
        image = np.zeros((height, width, 3), np.uint8)
        x, y, w, h = 10 + i, 12, 24, 30
        image[y : y + h, x : x + w] = random.integers(150, 255, 3)
        cv2.imwrite(str(root / f"{i}.png"), image)
        images.append({"id": 100 + i, "file_name": f"{i}.png", "width": width, "height": height})
        polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        record = {"id": i + 1, "image_id": 100 + i, "category_id": 1, "bbox": [x, y, w, h], "segmentation": polygon}
        annotations.append({**record, "iscrowd": int(i == 4), "area": w * h})
    whole = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "bar"}]}
    (root / "a.json").write_text(json.dumps(whole), encoding="utf-8")
    return root


def dataset(folder: Path, steps: list[dict[str, object]] = STEPS, **options: object) -> CocoDataset:
    return CocoDataset(str(folder / "a.json"), str(folder), steps, **options)  # type: ignore[arg-type]


def equal(a: Batch, b: Batch) -> bool:
    same = all(torch.equal(x.boxes, y.boxes) for x, y in zip(a.targets, b.targets, strict=True))
    return same and a.image_ids == b.image_ids and torch.equal(a.images, b.images)


def test_batches_do_not_depend_on_workers_or_on_the_first_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tldet.data.loader.multiprocessing", forked)  # new processes, with the libraries imported
    data = dataset(folder, seed=3)
    order = BatchOrder(data.sizes, 2, seed=3)
    alone = list(islice(train_batches(data, order), 10))
    helped = list(islice(train_batches(data, order, workers=2), 10))
    resumed = list(islice(train_batches(data, order, start=6), 4))
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert all(equal(a, b) for a, b in zip(alone[6:], resumed, strict=True))


def test_an_epoch_visits_each_sample_at_most_once_and_groups_by_shape(folder: Path) -> None:
    data = dataset(folder)
    order = BatchOrder(data.sizes, 2, seed=1)
    tall = data.sizes[:, 0] > data.sizes[:, 1]
    for epoch in range(5):
        batches = order.epoch(epoch)
        flat = [i for batch in batches for i in batch]
        assert len(batches) == len(order) == 4
        assert len(set(flat)) == 8
        assert sum(len({bool(tall[i]) for i in batch}) > 1 for batch in batches) <= 1
    assert order.epoch(0) != order.epoch(1)


@pytest.mark.parametrize(("wide", "tall"), [(200, 3), (3, 200), (7, 5), (5, 0)])
def test_leftover_images_of_all_shapes_form_the_last_batches(wide: int, tall: int) -> None:
    sizes = np.array([[60, 90]] * wide + [[90, 60]] * tall, np.int32)
    order = BatchOrder(sizes, 4, seed=0)
    seen = {i for epoch in range(300) for batch in order.epoch(epoch) for i in batch}
    assert seen == set(range(wide + tall))
    assert all(len({i for batch in order.epoch(e) for i in batch}) == 4 * len(order) for e in range(5))


def test_images_of_one_shape_keep_their_order() -> None:
    order = BatchOrder(np.array([[60, 90]] * 10, np.int32), 4, seed=5)
    random = np.random.default_rng([5, 2])
    rows = random.permutation(10)[:8].reshape(2, 4)
    assert order.epoch(2) == rows[random.permutation(2)].tolist()


@pytest.mark.parametrize("epoch", range(6))
def test_boxes_masks_and_pixels_stay_together(folder: Path, epoch: int) -> None:
    data = dataset(folder, [*STEPS[:2], {**STEPS[2], "least_visible": 0.0}], masks=True)
    for number in range(len(data)):
        sample = data[SampleKey(epoch, number, 0)]
        target = sample.target
        assert target.masks is not None
        assert len(target.masks) == len(target.boxes)
        assert target.ignore.tolist() == [number == 4] * len(target)
        for box, mask in zip(target.boxes, target.masks, strict=True):
            bright = sample.image.amax(0) > 90
            ys, xs = np.where(bright.numpy())
            found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert box.tolist() == pytest.approx(found, abs=1.6)
            assert (mask.bool() == bright).float().mean() > 0.95


def test_evaluation_sees_every_image_once_and_padding_is_a_multiple_of_32(folder: Path) -> None:
    batches = list(eval_batches(dataset(folder, STEPS[:1]), 4))
    assert sorted(i for batch in batches for i in batch.image_ids) == list(range(100, 109))
    assert all(side % 32 == 0 for batch in batches for side in batch.images.shape[-2:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_arrives_as_one_line_from_any_worker(folder: Path, tmp_path: Path, workers: int) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "5.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"5\.png: is not a readable image .*image 105") as raised:
        list(eval_batches(dataset(tmp_path), 3, workers=workers))
    assert "\n" not in str(raised.value)


def test_missing_images_are_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes((folder / "a.json").read_bytes())
    with pytest.raises(DataError, match=r"9 of 9 images of .* missing: 0\.png, 1\.png, 2\.png, \.\.\."):
        dataset(tmp_path).check_images()


def test_an_image_of_another_size_than_stated_is_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(DataError, match=r"0\.png: is 20 x 10, but the annotations state 60 x 90.*\(image 100 of "):
        dataset(tmp_path)[0]


def test_a_size_drawn_for_the_batch_is_that_of_every_image_in_it(folder: Path) -> None:
    def shorts(draw: str) -> list[set[int]]:
        sizes = list(range(30, 62, 2))
        steps: list[dict[str, object]] = [{"type": "Resize", "short": sizes, "long": 999, "draw": draw}]
        data = dataset(folder, steps)
        batches = islice(train_batches(data, BatchOrder(data.sizes, 3)), 9)
        return [{min(size) for size in batch.sizes} for batch in batches]

    together, apart = shorts("batch"), shorts("image")
    assert all(len(sizes) == 1 for sizes in together)
    assert len(set.union(*together)) > 3, "another size for another batch"
    assert any(len(sizes) > 1 for sizes in apart)


@pytest.mark.parametrize(("workers", "fits"), [(0, True), (256, True), ("auto", True), (257, False), (10**9, False)])
def test_the_number_of_workers_has_a_limit(workers: int | Literal["auto"], fits: bool) -> None:
    with nullcontext() if fits else pytest.raises(ConfigError, match=r"data\.loader\.workers must be at most 256"):
        LoaderSettings(workers=workers)
