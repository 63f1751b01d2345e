"""Datasets and transforms from outside tldet: wrapped, checked, and augmented with the seeds of the loader."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tldet.data.custom_dataset import CustomDataset, restrict
from tldet.data.custom_transforms import CustomTransform
from tldet.data.dataset import CocoDataset, DetectionDataset
from tldet.data.loader import BatchOrder, SampleKey, train_batches
from tldet.data.settings import DatasetOptions, SubsetSettings
from tldet.data.transforms import Pipeline
from tldet.errors import ConfigError, DataError
from tldet.registry import TRANSFORMS
from tldet.structures.target import Target
from tldet.workflows.training.data_problems import log_problems

BOX = [[2.0, 3.0, 20.0, 30.0]]


class Images:
    """Four images of 40 x 60 with one box each, without files."""

    class_names = ("a", "b")

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def __len__(self) -> int:
        return 4

    def load(self, index: int) -> tuple[Any, Target]:
        image = np.full((40, 60, 3), index, np.uint8)
        return image, replace(Target(torch.tensor(BOX), torch.tensor([index % 2])), **self.changes)


class Quick(Images):
    """The same with annotations that need no image."""

    sizes = ((40, 60),) * 4
    loaded = 0

    def load(self, index: int) -> tuple[Any, Target]:
        self.loaded += 1
        return super().load(index)

    def target(self, index: int) -> Target:
        return super().load(index)[1]


def wrapped(dataset: Any, **options: Any) -> CustomDataset:
    classes = options.pop("classes", None)
    return CustomDataset(dataset, DatasetOptions(**options), name="own (data.train)", classes=classes)


def test_samples() -> None:
    assert isinstance(Images(), DetectionDataset)
    data = wrapped(Images())
    assert (len(data), data.class_names, data.category_ids) == (4, ("a", "b"), (1, 2))
    assert data.sizes.tolist() == [[40, 60]] * 4
    sample = data[3]
    assert sample.image.shape == (3, 40, 60)
    assert sample.target.boxes.tolist() == BOX
    assert (sample.target.labels.tolist(), sample.target.image_id) == ([1], 4)


def test_annotations_without_images() -> None:
    dataset = Quick()
    data = wrapped(dataset)
    assert dataset.loaded == 0
    assert data.sizes.tolist() == [[40, 60]] * 4
    assert data[0].target.labels.tolist() == [0]


def test_classes_of_a_model_are_matched_by_name() -> None:
    data = wrapped(Images(), classes=("c", "b"))
    assert data.class_names == ("c", "b")
    assert [len(data[i].target) for i in range(4)] == [0, 1, 0, 1]
    assert data[1].target.labels.tolist() == [1]
    assert data[1].target.labeled is not None
    assert data[1].target.labeled.tolist() == [False, True]
    with pytest.raises(DataError, match="share no class"):
        wrapped(Images(), classes=("x",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": torch.tensor([[5.0, 5, 5, 9]])}, r"image 0: box 0 \[5.0, 5.0, 5.0, 9.0\] must have x1 > x0"),
        ({"boxes": torch.tensor([[0.0, 0, 61, 9]])}, "within the image of 60 x 40"),
        ({"boxes": torch.tensor([[0.0, 0, float("nan"), 9]])}, "must have x1 > x0"),
        ({"boxes": torch.zeros(1, 5)}, r"boxes must be \(N, 4\)"),
        ({"labels": torch.tensor([2])}, r"label 2 is not in 0..1"),
        ({"labels": torch.tensor([0, 1])}, "labels has 2 entries for 1 box"),
        ({"labels": torch.tensor([0.0])}, "must be integers"),
        ({"ignore": torch.zeros(3, dtype=torch.bool)}, "ignore has 3 entries"),
        ({"boxes": np.array(BOX)}, "boxes must be a torch tensor, not ndarray"),
        ({"image_id": 7}, "image_id 7 occurs twice"),
        ({"masks": torch.zeros(1, 4, 4, dtype=torch.uint8)}, "masks must be"),
    ],
)
def test_wrong_targets_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        wrapped(Images(**changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("names", [(), ("a", "a"), (1, 2)])
def test_class_names_are_different_strings(names: Any) -> None:
    dataset = Images()
    dataset.class_names = names
    with pytest.raises(DataError, match="class_names must be one or more different strings"):
        wrapped(dataset)


def test_a_size_that_is_wrong_is_named() -> None:
    dataset = Quick()
    dataset.sizes = ((41, 60),) * 4  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"image 0: has height and width \(40, 60\), but sizes states \(41, 60\)"):
        wrapped(dataset)[0]


def test_a_subset_is_nested() -> None:
    small, large = wrapped(Images()), wrapped(Images())
    restrict(small, SubsetSettings(0.5))
    restrict(large, SubsetSettings(0.75))
    assert len(small) == 2
    assert set(small.positions) < set(large.positions)


@TRANSFORMS.register_module(name="test_noise")
class Noise:
    """Shift the image by random numbers, and add a box."""

    def __call__(self, image: Any, target: Target, rng: np.random.Generator) -> tuple[Any, Target]:
        boxes = torch.cat([target.boxes, torch.tensor([[0.0, 0.0, 4.0, 4.0]])])
        added = replace(
            target, boxes=boxes, labels=torch.cat([target.labels, torch.tensor([1])]), ignore=torch.zeros(0)
        )
        return image + rng.integers(0, 9, image.shape, dtype=np.uint8), replace(added, ignore=torch.zeros(2).bool())


@TRANSFORMS.register_module(name="test_shift")
def shift(image: Any, target: Target, rng: np.random.Generator, by: int = 1) -> tuple[Any, Target]:
    return image + np.uint8(by), target


def test_transforms_are_seeded_by_the_loader() -> None:
    data = wrapped(Images(), transforms=[{"type": "test_noise"}, {"type": "HorizontalFlip", "p": 1.0}])
    first, again, other = data[SampleKey(0, 1, 0)], data[SampleKey(0, 1, 5)], data[SampleKey(1, 1, 0)]
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    assert first.target.boxes.tolist() == [[40, 3, 58, 30], [56, 0, 60, 4]]
    assert first.target.labels.tolist() == [1, 1]


def test_a_function_is_a_transform_too() -> None:
    data = wrapped(Images(), transforms=[{"type": "test_shift", "by": 3}])
    assert data[1].image.unique().tolist() == [4]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda image, target: image, "must return image, target, not ndarray"),
        (lambda image, target: (image / 255, target), "of uint8, not float64"),
        (lambda image, target: (image[..., 0], target), "must be an array"),
        (lambda image, target: (image[:20], target), "within the image of 60 x 20"),
        (lambda image, target: (image, replace(target, labels=target.labels[:0])), "labels has 0 entries"),
    ],
)
def test_outputs_of_transforms_are_checked(returned: Any, message: str) -> None:
    step = CustomTransform(lambda image, target, rng: returned(image, target), "transforms.0: transform Own")
    pipeline = Pipeline([])
    pipeline.steps = [step]
    data = wrapped(Images())
    data.pipeline = pipeline
    with pytest.raises(DataError, match=message) as raised:
        data[0]
    assert str(raised.value).startswith("transforms.0: transform Own: ")


def test_a_transform_of_other_arguments_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"must be callable as \(image, target, rng\)"):
        CustomTransform(lambda image: image, "own")


def test_it_travels_to_workers() -> None:
    data = wrapped(Images(), transforms=[{"type": "test_noise"}])
    order = BatchOrder(data.sizes, 2)
    here, there = (next(train_batches(data, order, workers=workers)) for workers in (0, 1))
    assert torch.equal(here.images, there.images)
    assert len(pickle.loads(pickle.dumps(data))) == 4


@TRANSFORMS.register_module(name="test_pair")
class Pair:
    """Put the object of another image beside the first one; the lower half of the image is that of the other."""

    extra = 1

    def __call__(self, image: Any, target: Target, rng: np.random.Generator, others: Any) -> tuple[Any, Target]:
        ((other, more),) = others
        image = np.concatenate([image[: len(image) // 2], other[len(other) // 2 :]])
        return image, replace(
            target,
            boxes=torch.cat([target.boxes, more.boxes]),
            labels=torch.cat([target.labels, more.labels]),
            ignore=torch.zeros(2, dtype=torch.bool),
        )


def test_a_transform_gets_further_samples() -> None:
    data = wrapped(Images(), transforms=[{"type": "Resize", "short": 20, "long": 30}, {"type": "test_pair"}])
    keys = [SampleKey(epoch, 1, 0) for epoch in range(12)]
    samples = [data[key] for key in keys]
    assert {tuple(one.image.shape) for one in samples} == {(3, 20, 30)}  # the others were resized too
    assert all(one.image[:, 0].unique().tolist() == [1] for one in samples)
    others = [int(one.image[0, -1, 0]) for one in samples]
    assert set(others) == {0, 1, 2, 3}
    for sample, other in zip(samples, others, strict=True):
        assert sample.target.boxes.tolist() == [[1, 1.5, 10, 15]] * 2
        assert sample.target.labels.tolist() == [1, other % 2]
    assert [int(data[key].image[0, -1, 0]) for key in reversed(keys)] == others[::-1]


def test_a_class_counts_as_annotated_if_it_is_on_all_images_of_a_sample() -> None:
    class Partly(Images):
        def load(self, index: int) -> tuple[Any, Target]:
            image, target = super().load(index)
            return image, replace(target, labeled=torch.tensor([True, index % 2 == 1]))

    data = wrapped(Partly(), transforms=[{"type": "test_pair"}])
    for epoch in range(8):
        sample = data[SampleKey(epoch, 1, 0)]
        other = int(sample.image[0, -1, 0])
        labeled = sample.target.labeled
        assert (None if labeled is None else labeled.tolist()) == (None if other % 2 else [True, False])


@TRANSFORMS.register_module(name="test_copy")
def copy_corner(image: Any, target: Target, rng: np.random.Generator, others: Any, size: int = 4) -> tuple[Any, Target]:
    image = image.copy()
    for number, (other, _) in enumerate(others):
        image[:size, number * size : (number + 1) * size] = other[:size, :size]
    return image, target


copy_corner.extra = 3  # type: ignore[attr-defined]


def test_a_function_may_need_further_samples() -> None:
    data = wrapped(Images(), transforms=[{"type": "test_copy", "size": 2}, {"type": "test_pair"}])
    assert data.pipeline.extra == 4
    sample = data[SampleKey(2, 3, 0)]
    assert sample.image[:, :2, 6:].unique().tolist() == [3]
    assert len(sample.target) == 2
    assert torch.equal(sample.image, data[SampleKey(2, 3, 7)].image)


@pytest.mark.parametrize("extra", [-1, 1.5, True, "2"])
def test_extra_must_be_a_number_of_samples(extra: Any) -> None:
    class Wrong(Pair):
        pass

    Wrong.extra = extra
    with pytest.raises(ConfigError, match=r"own: extra must be a number of samples, 0 or more"):
        CustomTransform(Wrong(), "own")


def test_a_transform_with_extra_must_take_others() -> None:
    class Wrong:
        extra = 1

        def __call__(self, image: Any, target: Target, rng: np.random.Generator) -> tuple[Any, Target]:
            return image, target

    with pytest.raises(ConfigError, match=r"must be callable as \(image, target, rng, others\)"):
        CustomTransform(Wrong(), "own")


def test_groups_in_both_splits_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    class Videos(Images):
        groups = ("video 1", "video 1", "video 2", "video 3")

    train, val = wrapped(Videos()), wrapped(Videos())
    train.positions, val.positions = np.array([0, 2]), np.array([1, 3])
    log_problems(train, val)
    assert "train and val have images of the same group, so that the validation AP is too high: video 1" in caplog.text
    caplog.clear()
    val.positions = np.array([3])
    log_problems(train, val)
    log_problems(train, None)
    log_problems(wrapped(Images()), wrapped(Images()))
    assert "the same group" not in caplog.text


def test_a_class_that_a_split_lacks_has_no_id_in_messages(digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, valid = (str(digits / split) for split in ("train", "valid"))
    classes = [*"0123456789", "ten", "eleven"]
    data = [CocoDataset(f"{one}/_annotations.coco.json", one, classes=classes) for one in (train, valid)]
    assert data[1].category_ids[-2:] == (-1, -1)
    log_problems(*data)
    assert "category id -1" not in caplog.text
    assert "negative" not in caplog.text
