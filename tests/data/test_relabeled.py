"""Annotations of user datasets as COCO JSON, with the images still in the dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tldet.components import needed_imports
from tldet.data.custom_dataset import CustomDataset
from tldet.data.index import AnnotationIndex
from tldet.data.relabeled import RelabeledDataset, build_user_dataset, coco_type, source_name, write_annotations
from tldet.data.settings import DatasetOptions
from tldet.errors import ConfigError, DataError
from tldet.registry import DATASETS
from tldet.structures.target import Target


class Squares:
    """Three images of different sizes, with 0, 1 and 2 objects of the classes a and b."""

    class_names = ("a", "b")

    def __init__(self, count: int = 3, shade: int = 50) -> None:
        self.count, self.shade = count, shade

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[np.ndarray, Target]:
        image = np.full((20 + index, 30, 3), self.shade * index, np.uint8)
        boxes = torch.tensor([[1.5, 2, 8.25, 9], [3, 4, 9, 11]])[:index]
        masks = torch.zeros(index, 20 + index, 30, dtype=torch.uint8)
        masks[:, 4:8, 3:7] = 1
        ignore = torch.tensor([False, True])[:index]
        labeled = torch.tensor([True, index > 1])
        return image, Target(boxes, torch.tensor([1, 0])[:index], ignore, masks=masks, labeled=labeled)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    DATASETS.register_module("Squares", module=Squares)
    yield
    DATASETS.module_dict.pop("Squares")


def written(folder: Path, *, masks: bool = False) -> tuple[CustomDataset, dict[str, Any]]:
    """Write the annotations; return the dataset and the section that reads them."""
    section = {"type": "Squares", "shade": 60}
    options = DatasetOptions((), masks)
    dataset = CustomDataset(build_user_dataset(section, 0, "data.train"), options, name="squares")
    split = write_annotations(dataset, source_name(section), folder / "a.json")
    paths = {"annotations": str(split.annotations), "images": str(split.images)}
    return dataset, {**coco_type({source_name(section): section}), **paths, "masks": masks}


def opened(section: dict[str, Any], **more: Any) -> RelabeledDataset:
    given = {key: value for key, value in section.items() if key != "type"}
    return RelabeledDataset(**{**given, **more})


@pytest.mark.parametrize("masks", [False, True])
def test_the_samples_are_those_of_the_user_dataset(tmp_path: Path, masks: bool) -> None:
    own, section = written(tmp_path, masks=masks)
    dataset = opened(section)
    dataset.check_images()
    assert len(dataset) == 3
    for number in range(3):
        expected, found = own[number], dataset[number]
        assert torch.equal(expected.image, found.image)
        for name in ("boxes", "labels", "ignore", "image_id"):
            assert torch.equal(
                torch.as_tensor(getattr(expected.target, name)), torch.as_tensor(getattr(found.target, name))
            )
        assert (found.target.labeled is None) == (number > 1)
        if masks:
            assert torch.equal(expected.target.masks, found.target.masks)


def test_the_annotations_are_those_of_the_json(tmp_path: Path) -> None:
    """A file in which classes and objects were selected decides, not the dataset."""
    _, section = written(tmp_path)
    content = json.loads((tmp_path / "a.json").read_text())
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] == 2]
    content["images"] = content["images"][1:]
    (tmp_path / "a.json").write_text(json.dumps(content))
    dataset = opened(section, classes=("b",))
    assert [sample.target.labels.tolist() for sample in (dataset[0], dataset[1])] == [[0], [0]]
    assert dataset[1].image.float().mean() == 120, "the last image"


def test_image_files_and_images_of_the_dataset(tmp_path: Path) -> None:
    _, section = written(tmp_path)
    cv2.imwrite(str(tmp_path / "12.png"), np.full((24, 32, 3), 7, np.uint8))
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"].append({"id": 9, "file_name": "12.png", "width": 32, "height": 24})
    (tmp_path / "a.json").write_text(json.dumps(content))
    dataset = opened(section)
    dataset.check_images()
    assert len(dataset) == 4
    assert dataset[3].image.shape == (3, 24, 32)
    (tmp_path / "12.png").unlink()
    with pytest.raises(DataError, match=r"1 of 1 image of .* missing: 12\.png"):
        opened(section).check_images()
    skipping = opened(section, on_bad_image="skip")
    with pytest.raises(DataError, match="no image can be used"):
        skipping.check_images()


def test_mismatches_are_named(tmp_path: Path) -> None:
    _, section = written(tmp_path)
    (name,) = section["sources"]
    with pytest.raises(DataError, match=rf"a\.json: names {name}/2, but {name} has 2 images now"):
        opened({**section, "sources": {name: {"type": "Squares", "count": 2}}})
    with pytest.raises(ConfigError, match=r"sources\.x: no dataset is called 'Missing'; .* --import PACKAGE"):
        opened({**section, "sources": {"x": {"type": "Missing"}}})
    content = json.loads((tmp_path / "a.json").read_text())
    content["images"][1]["height"] = 22
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"image 1: has height and width \(21, 30\), but \(22, 30\) in"):
        opened(section)[1]


def test_a_checkpoint_needs_the_package_of_the_dataset(tmp_path: Path) -> None:
    _, section = written(tmp_path)
    assert needed_imports({"data": {"train": section}}) == [__name__]
    assert AnnotationIndex.load(section["annotations"]).class_names == ("a", "b")
