"""A mask stays on its object: aligned with the image and with its box through every transform."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tldet.data.albumentation import SLACK, Albumentation, albumentations
from tldet.data.masks import fit_to_masks, mask_boxes, resize_masks
from tldet.data.transforms import Draws, LabeledSample, Pipeline
from tldet.registry import TRANSFORMS

SIZE = (120, 160)
EVERY: dict[str, dict[str, Any]] = {
    "Resize": {"short": 87, "long": 150},
    "HorizontalFlip": {"p": 1.0},
    "VerticalFlip": {"p": 1.0},
    "ColorJitter": {"p": 1.0},
    "RandomCrop": {"p": 1.0},
    "RandomTile": {"size": 100, "p": 1.0},
    "LargeScaleJitter": {"scale": (0.4, 2.0)},
    "RandomResizedCrop": {"size": 97},
    "CenterCrop": {"size": 101},
}
MIXING = {"Mosaic", "MixUp", "CopyPaste"}  # see test_mixing.py
WHOLE_PIXELS = {"HorizontalFlip", "VerticalFlip", "ColorJitter", "RandomCrop", "RandomTile"}  # nothing is resampled
RESIZING: dict[str, dict[str, Any]] = {  # of albumentations; see test_albumentations.py for all transforms
    "LongestMaxSize": {"max_size": 233},
    "RandomScale": {"scale_limit": 0.5},
    "RandomSizedCrop": {"min_max_height": (60, 110), "size": (97, 131)},
    "SmallestMaxSize": {"max_size": 61},
}


def ellipse(size: tuple[int, int], x: float, y: float, across: float, down: float) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return (((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1).astype(np.uint8)


def objects(seed: int) -> LabeledSample:
    """Two ellipses with the boxes of their pixels, the first white on a black image."""
    random = np.random.default_rng(seed)
    shapes = [(*random.uniform((30, 30), (130, 90)), *random.uniform(8, 30, 2)) for _ in range(2)]
    masks = np.stack([ellipse(SIZE, *shape) for shape in shapes])
    boxes = mask_boxes(masks)
    image = np.repeat(masks[0][..., None] * np.uint8(255), 3, 2)
    return LabeledSample(image, boxes, np.arange(2), np.zeros(2, bool), masks)


def center(weights: NDArray[Any]) -> NDArray[np.float64]:
    total = weights.sum()
    axes = (np.arange(n) + 0.5 for n in weights.shape)
    return np.array([(weights.sum(1 - i) * axis).sum() / total for i, axis in enumerate(axes)])


def assert_aligned(found: LabeledSample, gap: float = SLACK, shift: float = 0.4) -> None:
    """No box further than ``gap`` pixels from the extent of its mask; the first mask over the white of the image.

    The tip of a curved outline covers less than half of a pixel, or a corner does after a rotation: there the box is
    right and the mask is up to a pixel shorter. For straight sides see the test of rectangles.
    """
    assert found.masks is not None
    assert found.masks.shape == (len(found.boxes), *found.image.shape[:2])
    for row, mask, box, around in zip(found.rows, found.masks, found.boxes, mask_boxes(found.masks), strict=True):
        if mask.any():
            assert np.abs(box - around).max() <= gap + 1e-3, row
        white = found.image[..., 0] - float(found.image[..., 0].min())
        if row == 0 and mask.sum() > 60 and white.max() > 64:  # ColorJitter may leave no contrast
            assert np.abs(center(mask) - center(white)).max() < shift


def seeded(seed: int) -> Draws:
    return Draws(np.random.default_rng(seed), np.random.default_rng(seed))


def test_every_transform_is_tested() -> None:
    TRANSFORMS.import_from_location()
    own = {name for name, kind in TRANSFORMS.module_dict.items() if kind.__module__.startswith("tldet.")}
    assert own == set(EVERY) | MIXING


@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_masks_stay_aligned_in_every_transform(name: str, seed: int) -> None:
    found = Pipeline([{"type": name, **EVERY[name]}])(objects(seed), (seed,), (seed,))
    assert_aligned(found, gap=0 if name in WHOLE_PIXELS else SLACK)


def rectangle(seed: int) -> LabeledSample:
    random = np.random.default_rng(seed)
    (x0, y0), (w, h) = random.integers((5, 5), (60, 40)), random.integers(14, 90, 2)
    mask = np.zeros(SIZE, np.uint8)
    mask[y0 : y0 + h, x0 : x0 + w] = 1
    return one(mask, [x0, y0, min(x0 + w, SIZE[1]), min(y0 + h, SIZE[0])])


STRAIGHT = [*(set(EVERY) - WHOLE_PIXELS), *RESIZING]


@pytest.mark.parametrize("name", sorted(STRAIGHT))
def test_sides_of_resampled_rectangles_are_rounded_and_not_shifted(name: str) -> None:
    """Each side of the mask is that of its box rounded to pixels: no further than 0.5 away, and 0 on average."""
    own = None if name in EVERY else Albumentation(getattr(albumentations(), name)(**RESIZING[name], p=1.0))
    gaps = []
    for seed in range(120):
        given = rectangle(seed)
        found = own(given, seeded(seed)) if own else Pipeline([{"type": name, **EVERY[name]}])(given, (seed,), (seed,))
        if len(found.boxes) and found.masks is not None and found.masks.any():
            gaps.append(found.boxes[0] - mask_boxes(found.masks)[0])
    assert len(gaps) > 80
    assert np.abs(gaps).max() < 0.52
    assert np.abs(np.mean(gaps, 0)).max() < 0.1


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.65, 2 / 3, 0.83, 1.39, 2.0])
def test_resized_masks_are_not_shifted(factor: float) -> None:
    """The mean shift over many positions is zero, and a mirrored mask gives the mirrored result."""
    random, shifts = np.random.default_rng(0), []
    size = (round(SIZE[0] * factor), round(SIZE[1] * factor))
    scale = np.array(size) / SIZE
    for _ in range(40):
        mask = ellipse(SIZE, *random.uniform((50, 50), (110, 70)), *random.uniform(15, 40, 2))[None]
        resized = resize_masks(mask, size)
        shifts.append(center(resized[0]) - center(mask[0]) * scale)
        np.testing.assert_array_equal(resize_masks(mask[..., ::-1].copy(), size), resized[..., ::-1])
    assert np.abs(np.mean(shifts, 0)).max() < 0.03


def crop(given: LabeledSample, window: tuple[int, int, int, int]) -> LabeledSample:
    from tldet.data.crops import crop

    return crop(given, window, 0.3)


def one(mask: NDArray[np.uint8], box: list[float]) -> LabeledSample:
    image = np.zeros((*mask.shape, 3), np.uint8)
    return LabeledSample(image, np.array([box], np.float32), np.arange(1), np.zeros(1, bool), mask[None])


def angle() -> NDArray[np.uint8]:
    """An L: a bar of 10 x 60 on the left and one of 60 x 10 at the foot."""
    mask = np.zeros((100, 100), np.uint8)
    mask[20:80, 20:30] = mask[70:80, 20:80] = 1
    return mask


@pytest.mark.parametrize(
    ("window", "box", "ignored"),
    [
        ((0, 0, 100, 100), [19.7, 20.2, 80.1, 79.8], False),  # not cut: the annotation stays
        ((0, 0, 60, 100), [19.7, 20.2, 60, 79.8], False),  # cut on the right: the other sides stay
        ((40, 0, 100, 100), [0, 70, 40.1, 79.8], False),  # without the upright bar: no longer as high
        ((0, 0, 100, 45), [19.7, 20.2, 30, 45], True),  # a quarter of the pixels, 40 % of the box
        ((35, 0, 100, 65), None, None),  # a corner of the box without a pixel of the object
    ],
)
def test_a_cut_box_is_that_of_the_rest_of_the_mask(window: Any, box: list[float] | None, ignored: bool | None) -> None:
    found = crop(one(angle(), [19.7, 20.2, 80.1, 79.8]), window)
    assert found.ignore.tolist() == ([] if box is None else [ignored])
    if box is not None:
        np.testing.assert_allclose(found.boxes, [box], atol=1e-4)


def test_an_object_without_a_mask_keeps_the_clipped_box() -> None:
    found = crop(one(np.zeros((100, 100), np.uint8), [10, 10, 60, 60]), (40, 0, 100, 100))
    assert found.boxes.tolist() == [[0, 10, 20, 60]]
    assert found.ignore.tolist() == [False]
    given = one(np.zeros((100, 100), np.uint8), [10, 10, 60, 60])
    given.masks = None
    assert crop(given, (40, 0, 100, 100)).boxes.tolist() == [[0, 10, 20, 60]]


def stepped(step: Any, given: LabeledSample, *, least_visible: float = 0.0) -> LabeledSample:
    return Albumentation(step, least_visible=least_visible)(given, seeded(0))


def test_crops_of_albumentations_follow_the_same_rule() -> None:
    library, given = albumentations(), one(angle(), [19.7, 20.2, 80.1, 79.8])
    for window in ((0, 0, 60, 100), (40, 0, 100, 100), (0, 0, 100, 45), (35, 0, 100, 65)):
        expected = crop(given, window)
        found = stepped(library.Crop(*window), given, least_visible=0.3)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1.01)
        assert found.ignore.tolist() == expected.ignore.tolist()
    given.masks = None
    found = stepped(library.Crop(70, 0, 100, 100), given, least_visible=0.3)
    np.testing.assert_allclose(found.boxes, [[0, 20.2, 10.1, 79.8]], atol=1e-3)
    assert found.ignore.tolist() == [True], "hardly shown: no background either"


def test_a_mask_that_becomes_too_small_leaves_the_box() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[50, 50] = 1
    found = stepped(albumentations().Resize(20, 20), one(mask, [50, 50, 51, 51]), least_visible=0.3)
    np.testing.assert_allclose(found.boxes, [[10, 10, 10.2, 10.2]], atol=1e-3)
    assert found.ignore.tolist() == [False]
    assert found.masks is not None
    assert not found.masks.any()


def test_mirrored_borders_give_each_copy_its_own_mask() -> None:
    import cv2

    mask = np.zeros((100, 100), np.uint8)
    mask[5:25, 5:35] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pad = albumentations().PadIfNeeded(140, 140, border_mode=cv2.BORDER_REFLECT_101)
    found = stepped(pad, one(mask, [5, 5, 35, 25]))
    assert len(found.boxes) > 1
    assert found.rows.tolist() == [0] * len(found.boxes)
    assert found.masks is not None
    np.testing.assert_allclose(found.boxes, mask_boxes(found.masks), atol=1.01)


def test_box_sides_follow_the_mask_only_if_it_differs() -> None:
    boxes, expected = np.array([[1.2, 1.1, 9.3, 9.4]], np.float32), np.array([[1, 1, 9, 9]], np.float32)
    found = np.array([[1, 1, 6, 9]], np.float32)
    np.testing.assert_allclose(fit_to_masks(boxes, expected, found), [[1.2, 1.1, 6, 9.4]])
    np.testing.assert_allclose(fit_to_masks(boxes, expected, found, 3.0), boxes)
