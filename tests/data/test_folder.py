"""Class folders: images found, held out and augmented, and errors."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tldet.data.eval_batches import eval_batches
from tldet.data.folder import ImageFolderDataset, collate_images, collate_whole, find_train_val, held_out, scan
from tldet.data.loader import BatchOrder, SampleKey, train_batches
from tldet.errors import DataError

STEPS: list[dict[str, Any]] = [
    {"type": "RandomResizedCrop", "size": 24, "scale": [0.3, 1.0]},
    {"type": "HorizontalFlip", "p": 0.5},
    {"type": "ColorJitter", "p": 1.0},
]
MIDDLE: list[dict[str, Any]] = [{"type": "CenterCrop", "size": 24, "share": 0.75}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 3, 10 and 20 images, wide and tall."""
    random = np.random.default_rng(0)
    for name, count in (("ant", 3), ("bee", 10), ("cat", 20)):
        (tmp_path / "train" / name / "deep").mkdir(parents=True)
        for i in range(count):
            size = (40, 60, 3) if i % 2 else (60, 40, 3)
            location = tmp_path / "train" / name / ("deep" if i == 0 else "") / f"{i}.png"
            cv2.imwrite(str(location), random.integers(0, 256, size, np.uint8))
    (tmp_path / "train" / "bee" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path / "train"


def test_classes_are_sorted_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = ImageFolderDataset(str(folder), MIDDLE)
    assert data.class_names == ("ant", "bee", "cat")
    assert np.bincount(data.labels).tolist() == [3, 10, 20]
    assert "ant/deep/0.png" in data.names
    assert "33 images in 3 classes, 3 to 20 each" in caplog.text


def test_a_part_of_each_class_is_held_out_and_the_same_for_a_seed(folder: Path) -> None:
    def names(part: Any, seed: int) -> list[str]:
        return ImageFolderDataset(str(folder), part=part, holdout=0.2, seed=seed).names

    train, held = names("train", 1), names("val", 1)
    assert sorted(train + held) == sorted(ImageFolderDataset(str(folder)).names)
    assert [sum(n.startswith(c) for n in held) for c in ("ant", "bee", "cat")] == [1, 2, 4]
    assert held == names("val", 1) != names("val", 2)


def test_a_single_image_is_trained_on() -> None:
    assert held_out(np.array([0, 1, 1]), 0.9, 0).tolist().count(True) == 1
    assert not held_out(np.array([0, 1, 1]), 0.9, 0)[0]


def test_augmentation_is_a_function_of_seed_epoch_and_position(folder: Path) -> None:
    one, two = (ImageFolderDataset(str(folder), STEPS, seed=5) for _ in range(2))
    keys = [SampleKey(epoch, position, 0) for epoch in (0, 1) for position in (4, 9)]
    forward = [one[key].image for key in keys]
    backward = [two[key].image for key in reversed(keys)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not torch.equal(forward[0], forward[2]), "another epoch"
    assert not torch.equal(forward[0], ImageFolderDataset(str(folder), STEPS, seed=6)[keys[0]].image), "another seed"


def test_center_crop_is_the_middle(tmp_path: Path) -> None:
    """An image of 40 x 80 scaled by 24 / 0.75 / 40, its middle cut out: white is x in 33..47 of the whole."""
    whole = np.zeros((40, 80, 3), np.uint8)
    whole[:, 40:] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), whole)
    image = ImageFolderDataset(str(tmp_path), MIDDLE)[0].image
    assert image.shape == (3, 24, 24)
    assert (image[:, :, :11] == 0).all()
    assert (image[:, :, 13:] == 255).all()


def test_batches_do_not_depend_on_workers_or_first_step(folder: Path) -> None:
    data = ImageFolderDataset(str(folder), STEPS, seed=3)
    order = BatchOrder(data.sizes, 5, seed=3, group_aspect=False)
    alone = list(islice(train_batches(data, order, collate=collate_images), 8))
    helped = islice(train_batches(data, order, workers=1, collate=collate_images), 8)
    resumed = islice(train_batches(data, order, start=6, collate=collate_images), 2)
    for a, b in [*zip(alone, helped, strict=True), *zip(alone[6:], resumed, strict=True)]:
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert a.image_ids == b.image_ids
    seen = [name for batch in eval_batches(data, 5, collate=collate_whole) for name in batch.image_ids]
    assert seen == data.names


def test_images_of_different_sizes_are_refused(folder: Path) -> None:
    data = ImageFolderDataset(str(folder), [{"type": "Resize", "short": 20, "long": 40}])
    with pytest.raises(DataError, match=r"different sizes .20 x 30, 30 x 20.; end with RandomResizedCrop"):
        list(eval_batches(data, 4, collate=collate_whole))


def test_a_broken_image_is_named(folder: Path) -> None:
    (folder / "bee" / "3.png").write_bytes(b"\x89PNG but no more")
    data = ImageFolderDataset(str(folder), MIDDLE)
    with pytest.raises(DataError, match=r"bee/3\.png: is not a readable image"):
        list(eval_batches(data, 4, collate=collate_whole))


def test_folders_that_do_not_serve_are_named(folder: Path, tmp_path: Path) -> None:
    def error(**options: Any) -> str:
        with pytest.raises(DataError) as raised:
            ImageFolderDataset(**{"folder": str(folder), **options})
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "nowhere: cannot be read: No such file" in error(folder=str(tmp_path / "nowhere"))
    assert "deep: has no class folders (looked for deep/CLASS/*.jpg)" in error(folder=str(folder / "ant" / "deep"))
    assert "has one class only (deep)" in error(folder=str(folder / "ant"))
    assert "1 of 3 class folders (cat) not among the classes of the model" in error(classes=["ant", "bee"])
    (folder / "dog").mkdir()
    (folder / "elk").mkdir()
    assert "2 of 5 class folders (dog, elk) without images; add images or remove the folders" in error()
    for name in ("a", "b"):
        (tmp_path / "blank" / name).mkdir(parents=True)
    assert "none of its 2 class folders has an image" in error(folder=str(tmp_path / "blank"))


def test_a_class_that_is_not_evaluated_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = ImageFolderDataset(str(folder), classes=["ant", "bee", "cat", "dog"])
    assert "1 of 4 class folders (dog) without images, not evaluated" in caplog.text
    assert data.labels.max() == 2


def test_one_image_a_class_leaves_none_to_hold_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="no class has two images"):
        ImageFolderDataset(str(tmp_path), part="val")


def test_parts_of_a_folder_are_found(folder: Path, tmp_path: Path) -> None:
    assert find_train_val(tmp_path) == (folder, None)
    assert find_train_val(folder) == (folder, None), "class folders without train around them"
    (tmp_path / "val").mkdir()
    assert find_train_val(tmp_path) == (folder, tmp_path / "val")
    (tmp_path / "other" / "val").mkdir(parents=True)
    with pytest.raises(DataError, match="has a folder val but no folder train"):
        find_train_val(tmp_path / "other")


def test_links_that_form_loops(folder: Path) -> None:
    """Two links to the folder above make 2**40 paths."""
    before = scan(folder)
    name = next(iter(before))
    for link, target in (("up", ".."), ("here", "."), ("self", "self")):
        (folder / name / link).symlink_to(target)
    (folder / "loop").symlink_to("loop")
    after = scan(folder)
    assert after.keys() == before.keys()
    assert after[name] == before[name]
