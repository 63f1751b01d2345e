"""Cuts of a fixed size, as classification takes them, through albumentations."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tldet.data.transforms import Draws, Labelled
from tldet.registry import TRANSFORMS

LEAST_AREA = 1e-6  # square pixels: albumentations takes less for no box


def albumentations() -> Any:
    """The library, imported when a step of it is built: prediction has none, and it takes time and memory."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as library

    return library


class Albumentation:
    """One step of albumentations, its boxes clipped and carried by row number; those that keep any extent stay.

    Args:
        transform: the step.
        least_visible: a step that cuts drops objects of which less than this share remains.
    """

    def __init__(self, transform: Any, *, least_visible: float = 0.0) -> None:
        library = albumentations()
        sane = {"clip": True, "filter_invalid_bboxes": True, "min_area": LEAST_AREA, "min_visibility": least_visible}
        params = library.BboxParams("pascal_voc", label_fields=["rows"], **sane)
        self.compose = library.Compose([transform], bbox_params=params)

    def __call__(self, sample: Labelled, draws: Draws) -> Labelled:
        """Run the step with a seed of its own."""
        self.compose.set_random_seed(int(draws.picture.integers(2**31)))
        places = np.arange(len(sample.boxes))
        given: dict[str, Any] = {"image": sample.image, "bboxes": sample.boxes, "rows": places}
        if sample.masks is not None and len(sample.masks):
            given["masks"] = sample.masks
        out = self.compose(**given)
        kept = np.asarray(out["rows"], np.int64)
        masks = sample.masks
        if masks is not None:
            masks = np.asarray(out["masks"])[kept] if len(masks) else np.zeros((0, *out["image"].shape[:2]), np.uint8)
        boxes = np.asarray(out["bboxes"], np.float32).reshape(-1, 4)
        return Labelled(out["image"], boxes, sample.rows[kept], sample.ignore[kept], masks)


@TRANSFORMS.register_module()
class RandomResizedCrop(Albumentation):
    """Cut out a random part and scale it to ``size`` x ``size`` (Szegedy et al. 2015, section 6).

    Args:
        size: pixels of the side that comes out.
        scale: least and greatest share of the picture's area.
        ratio: least and greatest width / height before scaling.
        least_visible: an object of which less than this share remains is dropped.
    """

    def __init__(
        self,
        size: int = 224,
        scale: tuple[float, float] = (0.25, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333),
        least_visible: float = 0.3,
    ) -> None:
        _check_size(size)
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise ValueError(f"scale={scale} must rise within 0..1 and ratio={ratio} must rise above 0")
        library = albumentations()
        cut = library.RandomResizedCrop((size, size), tuple(scale), tuple(ratio), area_for_downscale="image")
        super().__init__(cut, least_visible=least_visible)


@TRANSFORMS.register_module()
class CenterCrop(Albumentation):
    """Scale so that the short side is ``size / share`` and cut the middle ``size`` x ``size`` out.

    Args:
        size: pixels of the side that comes out.
        share: of the short side that is kept.
    """

    def __init__(self, size: int = 224, share: float = 0.875) -> None:
        _check_size(size)
        if not 0 < share <= 1:
            raise ValueError(f"share={share} must lie above 0 and be at most 1")
        library = albumentations()
        scale = library.SmallestMaxSize(max(size, round(size / share)), area_for_downscale="image")
        super().__init__(library.Sequential([scale, library.CenterCrop(size, size)], p=1.0), least_visible=0.1)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
