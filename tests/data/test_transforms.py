"""Boxes, flags and masks after each transform: no visible object turns into background."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from tldet.data.color import ColorJitter
from tldet.data.transforms import Draws, LabeledSample, Pipeline
from tldet.errors import ConfigError

SIZE = (50, 60)
SEED = (3, 1)


def sample(*boxes: list[float], ignore: list[bool] | None = None) -> LabeledSample:
    corners = np.array(boxes, np.float32)
    masks = np.zeros((len(boxes), *SIZE), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, np.round(corners).astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    flags = np.array(ignore or [False] * len(boxes))
    return LabeledSample(np.zeros((*SIZE, 3), np.uint8), corners, 70 + np.arange(len(boxes)), flags, masks)


def run(step: dict[str, Any], given: LabeledSample) -> LabeledSample:
    return Pipeline([step])(given, SEED, SEED)


@pytest.mark.parametrize(
    "step",
    [
        {"type": "HorizontalFlip", "p": 0.0},
        {"type": "HorizontalFlip", "p": 1.0},
        {"type": "VerticalFlip", "p": 1.0},
        {"type": "ColorJitter", "p": 1.0},
        {"type": "Resize", "short": 25, "long": 100},
        {"type": "RandomCrop", "p": 1.0, "scale": (1.0, 1.0), "ratio": (1.2, 1.2)},
    ],
)
def test_small_boxes_are_kept_without_a_crop(step: dict[str, Any]) -> None:
    given = sample([10, 10, 10.8, 10.8], [3, 4, 30, 4.1], [20, 20, 40, 40], ignore=[False, True, False])
    found = run(step, given)
    assert found.rows.tolist() == [70, 71, 72]
    assert found.ignore.tolist() == [False, True, False]
    assert found.masks is not None
    assert len(found.masks) == 3
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


@pytest.mark.parametrize("name", ["HorizontalFlip", "VerticalFlip"])
def test_a_mirrored_box_lies_on_the_same_pixels(name: str) -> None:
    given = sample([3, 4, 30, 41], [50, 0, 60, 50])
    given.image[4:41, 3:30] = 7
    found = run({"type": name, "p": 1.0}, given)
    x0, y0, x1, y1 = found.boxes[0].astype(int).tolist()
    assert (found.image[y0:y1, x0:x1] == 7).all()
    assert int((found.image == 7).sum()) == 3 * 27 * 37
    assert found.masks is not None
    assert (found.masks[0] == (found.image[..., 0] == 7)).all()
    assert found.boxes[1].tolist() == ([0, 0, 10, 50] if name == "HorizontalFlip" else [50, 0, 60, 50])
    twice = run({"type": name, "p": 1.0}, found)
    assert (twice.image == given.image).all()
    assert twice.boxes.tolist() == given.boxes.tolist()


COLOURED = np.random.default_rng(0).integers(60, 160, (*SIZE, 3), np.uint8).repeat(8, 0).repeat(8, 1)
NO_BOXES = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
KEPT = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "p": 1.0}


class Drawn:
    """Draws the high end of every span."""

    def random(self) -> float:
        return 0.0

    def uniform(self, _: float, high: float) -> float:
        return high


def recolored(**spans: float) -> Any:
    step = ColorJitter(**{**KEPT, **spans})
    return step(LabeledSample(COLOURED, *NO_BOXES), Draws(Drawn(), Drawn())).image  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colors_change_as_torchvision_s_do(name: str) -> None:
    adjust = getattr(functional, f"adjust_{name}")
    expected = adjust(torch.from_numpy(COLOURED).permute(2, 0, 1), 1.3).permute(1, 2, 0).numpy()
    assert np.abs(recolored(**{name: 0.3}).astype(int) - expected).max() <= 2  # theirs rounds the gray


def test_hue_turns_colors_and_keeps_their_brightness() -> None:
    turned = recolored(hue=0.02).astype(float)
    gray, ahead, aside = [0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]
    moved = turned - COLOURED
    assert np.abs(moved @ gray).max() < 1.5
    before, after = (np.arctan2(image @ aside, image @ ahead) for image in (COLOURED.astype(float), turned))
    strong = np.hypot(COLOURED @ np.array(ahead), COLOURED @ np.array(aside)) > 20
    angles = (before - after + np.pi)[strong] % (2 * np.pi) - np.pi
    assert np.rad2deg(angles).mean() == pytest.approx(0.02 * 360, abs=0.1)
    expected = functional.adjust_hue(torch.from_numpy(COLOURED).permute(2, 0, 1), 0.02).permute(1, 2, 0).numpy()
    assert np.corrcoef(moved.ravel(), (expected.astype(float) - COLOURED).ravel())[0, 1] > 0.6, "the same way round"
    assert (recolored() == COLOURED).all()


def test_a_color_jitter_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"transforms\.0.*hue"):
        Pipeline([{"type": "ColorJitter", "hue": 0.7}])


def cropped(
    *boxes: list[float], ignore: list[bool] | None = None, least_visible: float = 0.3
) -> tuple[LabeledSample, Any]:
    """A crop and its window, derived from an image whose pixels encode their position."""
    given = sample(*boxes, ignore=ignore)
    given.image[..., 0] = np.arange(SIZE[1])
    given.image[..., 1] = np.arange(SIZE[0])[:, None]
    step = {"type": "RandomCrop", "p": 1.0, "scale": (0.3, 0.5), "least_visible": least_visible}
    found = run(step, given)
    (x0, y0), (x1, y1) = found.image[0, 0, :2].tolist(), found.image[-1, -1, :2].tolist()
    return found, (x0, y0, x1 + 1, y1 + 1)


def test_a_crop_ignores_objects_that_it_hardly_shows_and_keeps_crowds() -> None:
    _, (x0, y0, x1, y1) = cropped([0, 0, 60, 50])
    assert min(x0, y0) >= 3
    assert x1 - x0 >= 12
    boxes = [
        [0, 0, 1, 1],  # outside
        [x0 - 3, y0, x0 + 1, y0 + 4],  # a quarter is inside
        [x0 - 1, y0, x0 + 3, y0 + 4],  # three quarters are
        [x0 - 3, y0 - 3, x0 + 1, y0 + 1],  # a crowd of which a sixteenth is inside
        [x0 - 3, y0 - 3, x0, y0],  # a crowd that only touches
        [x0 + 5, y0 + 5, x0 + 5.5, y0 + 5.5],  # small, but whole
    ]
    found, window = cropped(*boxes, ignore=[False, False, False, True, True, False])
    assert window == (x0, y0, x1, y1)
    assert found.rows.tolist() == [71, 72, 73, 75]
    assert found.ignore.tolist() == [True, False, True, False]
    assert found.boxes.tolist() == [[0, 0, 1, 4], [0, 0, 3, 4], [0, 0, 1, 1], [5, 5, 5.5, 5.5]]
    assert found.masks is not None
    assert found.masks.shape == (4, y1 - y0, x1 - x0)
    assert [int(mask.sum()) for mask in found.masks[:3]] == [4, 12, 1]


def test_a_crop_of_an_image_without_objects() -> None:
    empty = LabeledSample(
        np.zeros((*SIZE, 3), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    )
    found = run({"type": "RandomCrop", "p": 1.0, "scale": (0.3, 0.5)}, empty)
    assert found.boxes.shape == (0, 4)
    assert found.image.shape != (*SIZE, 3)
