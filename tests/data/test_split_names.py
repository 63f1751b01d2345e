"""The split of an annotation file by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tldet.data.split_names import split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("instances_train2017.json", "train"),
        ("person_keypoints_train.json", "train"),
        ("old_train.json", "train"),
        ("train-checkpoint.json", "train"),
        ("trainset.json", "train"),
        ("TRAIN.JSON", "train"),
        ("instances_val2017.json", "val"),
        ("dev.json", "val"),
        ("eval.json", "val"),
        ("image_info_test-dev2017.json", "test"),
        ("testing_data.json", "test"),
        ("train/_annotations.coco.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("train/train.json", "train"),
        ("val/train.json", None),
        ("train_val.json", None),
        ("instances_trainval2007.json", None),
        ("constrained.json", None),
        ("foodstuff.json", None),
        ("myTrain.json", "train"),
        ("trainA.json", "train"),
        ("trainData.JSON", "train"),
        ("train.json.gz", "train"),
        ("testA.json", "test"),
        ("validate.json", "val"),
        ("instances_minival2014.json", "val"),
        ("instances_valminusminival2014.json", None),
        ("latest.json", None),
        ("interval.json", None),
        ("train/annotations/coco.json", "train"),
        ("train/val/coco.json", None),
        ("annotations/labels.json", None),
    ],
)
def test_split_of(name: str, split: str | None) -> None:
    assert split_of(Path("test") / name, Path("test")) == split, "the data folder's own name does not count"
