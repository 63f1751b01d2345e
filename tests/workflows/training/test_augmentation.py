"""``--augment`` with presets, and the preset that ``auto`` chooses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tldet.errors import ConfigError
from tldet.workflows.training.augmentation import choose_preset, parse_transforms
from tldet.workflows.training.finetune import new_config
from tldet.workflows.training.request import FinetuneRequest
from tldet.workflows.training.run_options import Length


def types(steps: list[dict[str, Any]]) -> list[str]:
    return [step["type"] for step in steps]


def test_a_preset_stands_for_its_transforms() -> None:
    light = types(parse_transforms(["light"]))
    assert light == ["HorizontalFlip", "ColorJitter"]
    assert types(parse_transforms(["VerticalFlip", "light"])) == ["VerticalFlip", *light]
    assert parse_transforms(["none"]) == []
    with_masks, without = (types(parse_transforms(["strong"], masks=masks)) for masks in (True, False))
    assert {"LargeScaleJitter", "Mosaic", "MixUp"} <= set(without)
    assert set(with_masks) - set(without) == {"CopyPaste"}


@pytest.mark.parametrize("listed", [["light", "strong"], ["none", "HorizontalFlip"], ["auto", "VerticalFlip"]])
def test_presets_that_exclude_each_other(listed: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"--augment {' '.join(listed)}: {listed[0]} cannot be combined"):
        parse_transforms(listed)


@pytest.mark.parametrize(
    ("images", "batch", "length", "fast", "expected"),
    [
        (200, 4, Length("epochs", 5), False, "light (auto: 200 images, 5 passes)"),
        (200, 4, Length("epochs", 30), False, "standard (auto: 200 images, 30 passes)"),
        (200, 4, Length("steps", 5000), False, "strong (auto: 200 images, 100 passes)"),
        (100_000, 16, Length("steps", 90_000), True, "standard (auto: 100,000 images, 14.4 passes)"),
        (200, 4, Length("minutes", 3), False, "light (auto: 200 images, 7.2 passes, estimated)"),
        (200, 4, Length("minutes", 3), True, "strong (auto: 200 images, 90 passes, estimated)"),
    ],
)
def test_auto(images: int, batch: int, length: Length, fast: bool, expected: str) -> None:
    chosen, line = choose_preset(images, batch, length, fast=fast, small=True)
    assert line == f"augmentation {expected}"
    assert expected.startswith(chosen)


def config_of(digits: Path, out: Path, **options: Any) -> Any:
    return new_config(FinetuneRequest(digits, out=out, model="retinanet_lite0", steps=1000, **options))


def test_a_run_with_auto(digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="tldet"):
        config = config_of(digits, tmp_path / "auto", augment=["auto"], input_size="64x96")
    assert "augmentation strong (auto: 16 images, 250 passes)" in caplog.text
    assert "input size 64x96 (user-specified)" in caplog.text
    steps = config.get("data.train.transforms")
    assert types(steps)[:2] == ["Resize", "LargeScaleJitter"]
    assert config.get("data.val.transforms") == [{"type": "Resize", "short": 64, "long": 96}]
    unchanged = config_of(digits, tmp_path / "own").get("data.train.transforms")
    assert types(unchanged) == ["Resize", "HorizontalFlip", "ColorJitter"]


@pytest.mark.parametrize("size", ["0", "31", "320x", "400x320", "320x9000", "320,400", "-320"])
def test_input_sizes_that_are_none(size: str, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"--input-size {size}: must be SHORT or SHORTxLONG"):
        config_of(digits, tmp_path / "out", input_size=size)
