"""Every transform of albumentations that moves boxes and masks keeps both on the object, or is refused by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.data.test_masks import objects, seeded
from tldet.data.albumentation import SLACK, Albumentation, albumentations
from tldet.data.masks import FULL, mask_boxes
from tldet.data.named_transforms import albumentation
from tldet.data.transforms import LabeledSample
from tldet.errors import ConfigError, DataError

CROP: dict[str, Any] = {"height": 90, "width": 100}
ARGUMENTS: dict[str, dict[str, Any]] = {  # of transforms that need some, or that do too little with their defaults
    "Affine": {"scale": (0.6, 1.5), "translate_percent": (-0.3, 0.3), "rotate": (-40, 40), "shear": (-10, 10)},
    "AtLeastOneBBoxRandomCrop": CROP,
    "CenterCrop": CROP,
    "CenterCrop3D": {"size": [1, 1, 1]},
    "Crop": {"x_min": 20, "y_min": 10, "x_max": 140, "y_max": 100},
    "CropAndPad": {"percent": (-0.2, 0.2)},
    "CropNonEmptyMaskIfExists": CROP,
    "ElasticTransform": {"alpha": 30, "sigma": 10},
    "GridElasticDeform": {"num_grid_xy": [4, 4], "magnitude": 10},
    "LongestMaxSize": {"max_size": 233},
    "OpticalDistortion": {"distort_limit": (-0.3, 0.3)},
    "Pad": {"padding": [5, 9, 13, 2]},
    "Pad3D": {"padding": 1},
    "PadIfNeeded": {"min_height": 200, "min_width": 190},
    "PadIfNeeded3D": {"min_zyx": [1, 1, 1]},
    "RandomCrop": CROP,
    "RandomCrop3D": {"size": [1, 1, 1]},
    "RandomGridShuffle": {"grid": [2, 3]},
    "RandomResizedCrop": {"size": [97, 131]},
    "RandomScale": {"scale_limit": 0.5},
    "RandomSizedBBoxSafeCrop": {"height": 97, "width": 131},
    "RandomSizedCrop": {"min_max_height": [60, 110], "size": [97, 131]},
    "Resize": {"height": 157, "width": 233},
    "Rotate": {"limit": 40},
    "SafeRotate": {"limit": 40},
    "SmallestMaxSize": {"max_size": 61},
}
REFUSED = {  # reason in the message
    **dict.fromkeys(
        ["CenterCrop3D", "CoarseDropout3D", "CubicSymmetry", "Pad3D", "PadIfNeeded3D"], "is not for images"
    ),
    **dict.fromkeys(["RandomCrop3D", "Transform3D", "DualTransform"], "is not for images"),
    "MaskDropout": "needs mask, which a config cannot specify",
    "Morphological": "returns boxes that span several objects",
    "Mosaic": "needs mosaic_metadata, which a config cannot specify",
    "OverlayElements": "does not transform boxes and masks",
    "RandomCropNearBBox": "needs cropping_bbox, which a config cannot specify",
}
NEEDS_MASKS = {"CropNonEmptyMaskIfExists"}  # refuses samples without masks with a line of its own
LIKE = {"PixelDropout": 0.9}  # IoU of mask and image where single pixels of the image only are dropped; 0.98 otherwise
CUT = 2.0  # pixels by which the box of an object without a mask may cut it: distortions move boxes by whole pixels


def every() -> Iterator[str]:
    """The names of all dual transforms that a config can name."""
    library = albumentations()
    for name, kind in vars(library).items():
        if inspect.isclass(kind) and issubclass(kind, library.DualTransform):
            yield name


USABLE = sorted(set(every()) - set(REFUSED))


def made(name: str) -> Albumentation:
    return albumentation(name)(**ARGUMENTS.get(name, {}), p=1.0)


def drawn(seed: int) -> LabeledSample:
    """Two ellipses; the image shows the first one, with the gray value that a mask has while it is resampled."""
    sample = objects(seed)
    assert sample.masks is not None
    return replace(sample, image=np.repeat(sample.masks[0][..., None] * np.uint8(FULL), 3, 2))


def shown(sample: LabeledSample) -> NDArray[np.bool_]:
    return sample.image[..., 0] > FULL // 2


def test_the_list_of_transforms_is_that_of_the_library() -> None:
    assert len(USABLE) >= 40
    assert set(every()) >= {*REFUSED, *ARGUMENTS, *NEEDS_MASKS}, "a name is gone"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_transforms_are_named_with_the_reason(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(name)
    assert str(raised.value).startswith(f"A.{name}: {REFUSED[name]}")
    assert "\n" not in str(raised.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", USABLE)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_box_mask_and_image_stay_aligned(name: str, seed: int) -> None:
    found = made(name)(drawn(seed), seeded(seed))
    assert found.masks is not None
    assert found.masks.shape == (len(found.boxes), *found.image.shape[:2])
    for mask, box, around in zip(found.masks, found.boxes, mask_boxes(found.masks), strict=True):
        if mask.any():
            assert np.abs(box - around).max() <= SLACK + 1e-3
    mask, white = found.masks[found.rows == 0].any(0), shown(found)
    if white.sum() > 60 and mask.any():
        assert (mask & white).sum() / (mask | white).sum() >= LIKE.get(name, 0.98)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(set(USABLE) - NEEDS_MASKS))
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_boxes_without_masks_hold_their_objects(name: str, seed: int) -> None:
    found = made(name)(replace(drawn(seed), masks=None), seeded(seed))
    rows, columns = (np.arange(n) + 0.5 for n in found.image.shape[:2])
    held = np.zeros(found.image.shape[:2], np.bool_)
    for x0, y0, x1, y1 in found.boxes[found.rows == 0]:
        down, across = (rows > y0 - CUT) & (rows < y1 + CUT), (columns > x0 - CUT) & (columns < x1 + CUT)
        held |= down[:, None] & across
    assert not (shown(found) & ~held).any()


@pytest.mark.parametrize("name", sorted(NEEDS_MASKS))
def test_transforms_that_need_masks(name: str) -> None:
    with pytest.raises(DataError, match=f"transform A.{name}: .*mask"):
        made(name)(replace(drawn(0), masks=None), seeded(0))


def test_each_copy_of_an_object_has_the_box_of_its_own_mask() -> None:
    """The copies of a shuffled object were compared with the extent of the last copy."""
    step = albumentation("RandomGridShuffle")(grid=[3, 3], p=1.0)
    for seed in range(12):
        found = step(objects(seed), seeded(seed))
        assert found.masks is not None
        assert np.abs(found.boxes - mask_boxes(found.masks)).max() <= SLACK


@pytest.mark.parametrize("name", ["Erasing", "GridDropout", "CoarseDropout", "XYMasking"])
def test_dropped_regions_leave_exact_boxes(name: str) -> None:
    """Nothing is resampled, so the box of the rest is that of the mask, to the pixel."""
    for seed in range(40):
        found = made(name) if name != "XYMasking" else albumentation(name)(num_masks_x=3, mask_x_length=20, p=1.0)
        sample = found(objects(seed), seeded(seed))
        assert sample.masks is not None
        np.testing.assert_array_equal(sample.boxes, mask_boxes(sample.masks))
