"""Any albumentations transform by name: boxes and masks stay on their objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tldet.config import Config
from tldet.config.check import ComponentType, validate_config
from tldet.data.transforms import LabeledSample, Pipeline
from tldet.errors import ConfigError, DataError
from tldet.registry import TRANSFORMS

GEOMETRIC: list[dict[str, Any]] = [
    {"type": "A.HorizontalFlip"},
    {"type": "A.Transpose"},
    {"type": "A.D4"},
    {"type": "A.Rotate", "limit": [20, 40]},
    {"type": "A.Affine", "scale": [0.8, 1.2], "shear": [-10, 10], "translate_percent": [-0.1, 0.1]},
    {"type": "A.Perspective", "scale": [0.05, 0.1]},
    {"type": "A.RandomCrop", "height": 70, "width": 90},
    {"type": "A.RandomSizedBBoxSafeCrop", "height": 64, "width": 64},
    {"type": "A.PadIfNeeded", "min_height": 150, "min_width": 170},
    {"type": "A.LongestMaxSize", "max_size": 90},
    {"type": "A.GridDistortion", "distort_limit": [-0.2, 0.2]},
    {"type": "A.CoarseDropout", "num_holes_range": [3, 5], "hole_height_range": [10, 20], "hole_width_range": [10, 20]},
    {"type": "A.OneOf", "transforms": [{"type": "A.VerticalFlip", "p": 1.0}, {"type": "A.Rotate", "p": 1.0}]},
]
PIXELS = ["A.GaussNoise", "A.ToGray", "A.MotionBlur", "A.RandomBrightnessContrast", "A.CLAHE", "A.ImageCompression"]
SIZE = (100, 120)


def sample(masks: bool = True) -> LabeledSample:
    """An image with two bright objects on black: the image shows where they go."""
    drawn = np.zeros((2, *SIZE), np.uint8)
    drawn[0, 20:60, 15:50] = 1
    drawn[1, 50:80, 70:100] = 1
    image = np.repeat(drawn.max(0)[..., None] * np.uint8(255), 3, axis=2)
    boxes = np.array([[15, 20, 50, 60], [70, 50, 100, 80]], np.float32)
    rows, ignore = np.arange(2), np.zeros(2, np.bool_)
    return LabeledSample(image, boxes, rows, ignore, drawn if masks else None, labels=np.array([4, 7]), image_id=9)


def run(step: dict[str, Any], seed: int, masks: bool = True) -> LabeledSample:
    return Pipeline([step])(sample(masks), (seed,), (seed,))


@pytest.mark.parametrize("step", GEOMETRIC, ids=lambda step: step["type"])
@pytest.mark.parametrize("seed", range(3))
def test_masks_boxes_and_pixels_agree(step: dict[str, Any], seed: int) -> None:
    found = run({"p": 1.0, **step}, seed)
    assert found.masks is not None
    assert found.masks.shape == (len(found.boxes), *found.image.shape[:2])
    assert found.labels is not None
    assert found.labels.tolist() == [[4, 7][row] for row in found.rows]
    bright = found.image[..., 0] > 127
    shown = found.masks.any(0) if len(found.masks) else np.zeros_like(bright)
    assert (bright ^ shown.astype(bool)).mean() < 0.02
    for box, mask in zip(found.boxes, found.masks, strict=True):
        ys, xs = mask.nonzero()
        around = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert np.abs(box - around).max() <= 1.5


@pytest.mark.parametrize("step", GEOMETRIC, ids=lambda step: step["type"])
def test_boxes_without_masks_hold_their_objects(step: dict[str, Any]) -> None:
    found = run({"p": 1.0, **step}, 0, masks=False)
    height, width = found.image.shape[:2]
    inside = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in found.boxes:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        inside[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    bright = found.image[..., 0] > 127
    assert (bright & ~inside).sum() <= 0.02 * max(bright.sum(), 1)


@pytest.mark.parametrize("name", PIXELS)
def test_pixel_transforms_leave_boxes(name: str) -> None:
    found, before = run({"type": name, "p": 1.0}, 0), sample()
    assert np.array_equal(found.boxes, before.boxes)
    assert np.array_equal(found.masks, before.masks)  # type: ignore[arg-type]
    assert found.image.dtype == np.uint8


def test_it_is_a_function_of_the_seed() -> None:
    step = {"type": "A.GaussNoise", "std_range": [0.1, 0.2], "p": 1.0}
    first, again, other = run(step, 1), run(step, 1), run(step, 2)
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "A.GausNoise"}, "nearest: A.GaussNoise"),
        ({"type": "A.Compose", "transforms": []}, "no transform 'Compose' that can be used here"),
        ({"type": "A.GaussNoise", "std": 0.1}, "unknown key"),
        ({"type": "A.RandomCrop", "height": 5}, "width: is missing"),
    ],
)
def test_wrong_names_and_keys(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate_config(Config({"transforms": [step]}), {"transforms.*": ComponentType(TRANSFORMS)})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "A.GaussNoise", "std_range": [0.5, 7]}, "std_range"),
        ({"type": "A.Mosaic"}, "which a config cannot specify"),
        ({"type": "A.RandomCropNearBBox"}, "which a config cannot specify"),
        ({"type": "A.MaskDropout"}, "which a config cannot specify"),
        ({"type": "A.CenterCrop3D", "size": [1, 1, 1]}, "is not for images"),
        ({"type": "A.OneOf", "transforms": [{"type": "A.Rotate", "angle": 3}]}, "A.Rotate has no parameter 'angle'"),
    ],
)
def test_transforms_that_cannot_be_built(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Pipeline([step])
    assert message in str(raised.value)
    assert str(raised.value).startswith("transforms.0")
    assert "\n" not in str(raised.value)


def test_transforms_that_return_no_image() -> None:
    with pytest.raises(DataError, match=r"transform A.Normalize: must return an image .* of uint8, not float32"):
        run({"type": "A.Normalize", "p": 1.0}, 0)
    with pytest.raises(DataError, match=r"transform A.RandomCrop: .*\(image 9\)"):
        run({"type": "A.RandomCrop", "height": 500, "width": 500, "p": 1.0}, 0)
