"""``finetune`` keeps the dataset type and the transforms of a recipe; sizes and paths are filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tldet.config import Config, override, read_config
from tldet.errors import ConfigError
from tldet.workflows.training.augmentation import parse_transforms
from tldet.workflows.training.finetune import new_config
from tldet.workflows.training.recipes import default_transforms, is_resize, split_transforms
from tldet.workflows.training.request import FinetuneRequest

FLIP, JITTER = {"type": "VerticalFlip", "p": 0.25}, {"type": "ColorJitter", "p": 0.3}


def recipe(train: Any, val: Any = None) -> Config:
    data = {"train": {"transforms": train}, "val": {"transforms": val}}
    return Config({"data": {name: section for name, section in data.items() if section["transforms"] is not None}})


def resize(short: Any, long: int, **more: Any) -> dict[str, Any]:
    return {"type": "Resize", "short": short, "long": long, **more}


RANGE = resize([256, 320], 448, mode="range")
OTHER = {"type": "A.LongestMaxSize", "max_size": 640}


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        ([resize(800, 1333), FLIP], [resize(800, 1333)], [resize(320, 448), FLIP]),
        ([FLIP, resize([640, 800], 1333, mode="range")], [resize(800, 1333)], [FLIP, RANGE]),
        ([resize([288, 320, 352], 512, p=1)], [resize(320, 512)], [resize([288, 320, 352], 448, p=1)]),
        ([resize([480, 640, 800], 1333)], None, [resize([256, 320, 384], 448)]),
        ([OTHER, FLIP], None, [OTHER, FLIP]),
        (None, None, default_transforms(320, 448)[0]),
    ],
)
def test_the_transforms_of_the_recipe_stay(train: Any, val: Any, expected: list[dict[str, Any]]) -> None:
    found = split_transforms(recipe(train, val), 320, 448)
    assert found["train"] == expected
    assert found["val"] == found["test"] == [resize(320, 448)]


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        (["none"], []),
        (["VerticalFlip(p=0.25)", JITTER], [FLIP, JITTER]),
        (["A.GaussNoise"], [{"type": "A.GaussNoise"}]),
        (["dict(type='ColorJitter', p=0.3)"], [JITTER]),
    ],
)
def test_augment_replaces_all_but_the_resize(augment: list[Any], expected: list[dict[str, Any]]) -> None:
    found = split_transforms(recipe([resize(800, 1333), FLIP], [resize(800, 1333)]), 320, 448, augment)
    assert found["train"] == [resize(320, 448), *expected]
    alone = split_transforms(recipe([FLIP]), 320, 448, augment)["train"]
    assert alone == [default_transforms(320, 448)[0][0], *expected]
    assert found["val"] == [resize(320, 448)]


def test_augment_with_a_resize_of_its_own() -> None:
    given = ["Resize(short=96, long=128)", "HorizontalFlip"]
    assert split_transforms(recipe(None), 320, 448, given)["train"] == [resize(96, 128), {"type": "HorizontalFlip"}]


@pytest.mark.parametrize("text", ["a b", "Flip(0.5)", "Flip(p=f())", "3", "", "Flip(**x)"])
def test_invalid_transforms(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--augment"):
        parse_transforms([text])


def test_names_of_resizing_transforms() -> None:
    assert [is_resize({"type": name}) for name in ("Resize", "A.SmallestMaxSize", "RandomResizedCrop")] == [True] * 3
    assert not is_resize(FLIP)


def made(digits: Path, out: Path, config: Config, tmp_path: Path, **given: Any) -> Config:
    path = tmp_path / "recipe.py"
    path.write_text(config.dump())
    return new_config(FinetuneRequest(digits, out=out, model=str(path), steps=1, **given))


def own_recipe() -> Config:
    section = {"type": "CocoDataset", "annotations": "nowhere.json", "images": "nowhere", "keep_empty": False}
    train = {**section, "max_pixels": 10**8, "transforms": [resize([640, 800], 1333), FLIP]}
    config = read_config("retinanet_lite0")
    config.data["data"] |= {"train": train, "val": {**section, "keep_empty": True, "transforms": [resize(800, 1333)]}}
    return config


def test_a_recipe_keeps_its_data_settings(digits: Path, tmp_path: Path) -> None:
    data = made(digits, tmp_path / "out", own_recipe(), tmp_path)["data"]
    train = data["train"]
    assert (train["keep_empty"], train["max_pixels"], train["transforms"][1]) == (False, 10**8, FLIP)
    assert train["annotations"] == str((digits / "train" / "_annotations.coco.json").resolve())
    assert train["images"] == str((digits / "train").resolve())
    assert train["transforms"][0]["short"][1] == data["val"]["transforms"][0]["short"] <= 320
    assert data["val"]["keep_empty"] is True
    assert "keep_empty" not in data["test"], "the recipe has no test split"
    replaced = made(digits, tmp_path / "out", own_recipe(), tmp_path, augment=["ColorJitter(p=0.3)"])
    assert replaced["data"]["train"]["transforms"] == [train["transforms"][0], JITTER]
    assert replaced["data"]["train"]["keep_empty"] is False


def test_transforms_without_a_resize_are_an_error(digits: Path, tmp_path: Path) -> None:
    config = override(own_recipe(), {"data.train.transforms": [FLIP]})
    with pytest.raises(ConfigError, match=r"data\.train\.transforms: no transform resizes the images \(in recipe"):
        made(digits, tmp_path / "out", config, tmp_path)
    options = ["data.val.transforms=[dict(type='HorizontalFlip')]"]
    with pytest.raises(ConfigError, match=r"data\.val\.transforms: .*\(in --cfg-options\); put dict\(type='Resize'"):
        made(digits, tmp_path / "out", own_recipe(), tmp_path, cfg_options=options)
    assert not (tmp_path / "out").exists()
