"""Albumentations transforms of images, boxes and masks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.data.masks import (
    Boxes,
    MaskPixels,
    areas,
    clip_boxes,
    fit_to_masks,
    from_gray,
    mask_boxes,
    pixel_counts,
    to_gray,
)
from tldet.data.transforms import Draws, LabeledSample, SampleTransform
from tldet.errors import DataError
from tldet.structures.image import ImageArray
from tldet.system.imports import variable_set

UPDATE_CHECK = "NO_ALBUMENTATIONS_UPDATE"  # environment variable; "1" disables the check
SLACK = 1.0  # pixels by which a resampled mask may differ from its resampled box through rounding
TINY = 1e-6  # square pixels


def albumentations() -> Any:
    """Import albumentations when the first transform is built, because the import takes time and memory."""
    with variable_set(UPDATE_CHECK):  # there is no other switch
        import albumentations as library
    return library


def leaves(transform: Any) -> Iterator[Any]:
    """Yield the transforms within a composition of albumentations, or the transform itself."""
    if isinstance(transform, albumentations().BaseCompose):
        for one in transform.transforms:
            yield from leaves(one)
    else:
        yield transform


class _Moved(NamedTuple):
    """Output of a transform of N objects: M boxes, not clipped."""

    image: ImageArray
    rows: NDArray[np.int64]  # (M,) object of each box
    boxes: Boxes  # (M, 4)
    expected: Boxes  # (M, 4) extent of the mask of each box's object, transformed as a box; NaN without a mask
    masks: MaskPixels | None  # (N, H, W)


class Albumentation(SampleTransform):
    """An albumentations transform. Objects that end up outside the image are dropped.

    Masks are interpolated like the image, so they do not shift against it. The box of a cropped, rotated or distorted
    object is computed from its mask; without a mask, the transformed box is clipped.

    Args:
        transform: the albumentations transform.
        least_visible: objects with a smaller visible fraction than this are ignored in training.
        name: name of the transform in messages.
    """

    def __init__(self, transform: Any, *, least_visible: float = 0.0, name: str = "albumentations") -> None:
        library, self.least_visible, self.name = albumentations(), least_visible, name
        from albumentations.augmentations.dropout.transforms import BaseDropout

        from tldet.data.box_carrier import BoxCarrier

        self.drops_only = all(isinstance(one, BaseDropout) for one in leaves(transform))
        self.in_place = all(isinstance(one, library.ImageOnlyTransform) for one in leaves(transform))
        if self.in_place:  # boxes would be rounded
            self.compose = library.Compose([transform])
            return
        params = library.BboxParams("pascal_voc", label_fields=["rows"], check_each_transform=False)
        self.compose = library.Compose([transform], bbox_params=params, mask_interpolation=cv2.INTER_LINEAR)
        self.compose.processors["bboxes"] = BoxCarrier(params)
        self.compose._set_processors_for_transforms(self.compose.transforms)

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Run the transform with a seed drawn from the generator of the image."""
        self.compose.set_random_seed(int(draws.image.integers(2**31)))
        if self.in_place:
            return replace(sample, image=self._composed({"image": sample.image}, sample.image_id)["image"])
        moved = self._run(sample)
        rows, window = moved.rows, (0, 0, moved.image.shape[1], moved.image.shape[0])
        boxes = clip_boxes(self._unrounded(moved.boxes, sample.boxes[rows]), window)
        share, masks = areas(boxes) / np.maximum(areas(moved.boxes), TINY), None
        if moved.masks is not None and sample.masks is not None:
            masks = _copies(moved.masks[rows], boxes, rows)
            whole = self._unrounded(moved.expected, mask_boxes(sample.masks)[rows])
            boxes, shown = _follow(boxes, whole, masks, window, 0.0 if self.drops_only else SLACK)
            boxes *= (shown | ~np.isin(rows, rows[shown]))[:, None]  # a copy without a pixel, next to others
            pixels = pixel_counts(sample.masks) / np.maximum(areas(mask_boxes(sample.masks)), TINY)  # of a whole box
            share = np.where(shown, pixel_counts(masks) / np.maximum(pixels[rows] * areas(whole), TINY), share)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        ignore = sample.ignore[rows] | (share < self.least_visible)
        masks = None if masks is None else masks[kept]
        kept_rows = rows[kept]
        return LabeledSample(
            moved.image,
            boxes[kept],
            sample.rows[kept_rows],
            ignore[kept],
            masks,
            labels=sample.labels_of(kept_rows),
            image_id=sample.image_id,
        )

    def _unrounded(self, boxes: Boxes, before: Boxes) -> Boxes:
        """Undo the rounding of albumentations' dropouts, which cut boxes to whole pixels."""
        if not self.drops_only:
            return boxes
        return np.where(np.abs(boxes - before) <= SLACK, before, boxes)

    def _run(self, sample: LabeledSample) -> _Moved:
        """Transform the image, the masks, the objects' boxes and the boxes around the masks."""
        count, masks = len(sample.boxes), sample.masks
        before = np.zeros((count, 4), np.float32) if masks is None else mask_boxes(masks)
        own = np.flatnonzero(areas(before) > 0)
        inputs = {"image": sample.image, "bboxes": np.concatenate([sample.boxes, before[own]])}
        if masks is not None and count:
            inputs["masks"] = to_gray(masks)
        inputs["rows"] = np.concatenate([np.arange(count), count + own])
        out = self._composed(inputs, sample.image_id)
        boxes, rows = np.asarray(out["bboxes"], np.float32).reshape(-1, 4), np.asarray(out["rows"], np.int64)
        objects = rows < count
        expected = _nearest(boxes[objects], rows[objects], boxes[~objects], rows[~objects] - count)
        if masks is not None:
            changed = np.asarray(out["masks"]) if count else np.zeros((0, *out["image"].shape[:2]), np.uint8)
            masks = from_gray(changed)
        return _Moved(out["image"], rows[objects], boxes[objects], expected, masks)

    def _composed(self, inputs: dict[str, Any], image_id: int) -> dict[str, Any]:
        """Call albumentations.

        Raises:
            DataError: the transform cannot be applied to the image, or does not return an image of uint8.
        """
        try:
            out: dict[str, Any] = self.compose(**inputs)
        except Exception as error:  # each transform raises its own kinds
            why = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"transform {self.name}: {why} (image {image_id})") from error
        image = np.asarray(out["image"])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            what = f"{image.dtype} {image.shape}; normalization is part of the model"
            raise DataError(f"transform {self.name}: must return an image (H, W, 3) of uint8, not {what}")
        return out


def _nearest(boxes: Boxes, rows: NDArray[np.int64], others: Boxes, owners: NDArray[np.int64]) -> Boxes:
    """Return for each box the nearest of the other boxes of its object (an object may have copies): (M, 4) or NaN."""
    found, order = np.full_like(boxes, np.nan), np.argsort(owners, kind="stable")
    starts, ends = (np.searchsorted(owners[order], rows, side) for side in ("left", "right"))
    for i, (box, start, end) in enumerate(zip(boxes, starts, ends, strict=True)):
        if end > start:
            own = others[order[start:end]]
            found[i] = own[np.abs(own - box).sum(1).argmin()]
    return found


def _copies(masks: MaskPixels, boxes: Boxes, rows: NDArray[np.int64]) -> MaskPixels:
    """Restrict the masks (M, H, W) of objects with several copies (mirrored borders) to the box of each copy.

    Albumentations rounds boxes by up to a pixel: pixels next to the box that are in the box of no copy belong to it.
    """
    for row in np.flatnonzero(np.bincount(rows) > 1):
        copies = np.flatnonzero(rows == row)
        free = np.ones(masks.shape[1:], np.uint8)
        for i in copies:
            free[_region(boxes[i])] = 0
        for i in copies:
            allowed = np.zeros_like(free)
            wide = _region(boxes[i], SLACK)
            allowed[wide] = free[wide]
            allowed[_region(boxes[i])] = 1
            masks[i] &= allowed
    return masks


def _region(box: Boxes, margin: float = 0.0) -> tuple[slice, slice]:
    """Return the pixels of a box with a margin."""
    (x0, y0), (x1, y1) = np.floor(box[:2] - margin).clip(0).astype(int), np.ceil(box[2:] + margin).astype(int)
    return slice(y0, y1), slice(x0, x1)


def _follow(
    boxes: Boxes, expected: Boxes, masks: MaskPixels, window: tuple[int, int, int, int], slack: float
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Return boxes (M, 4) fitted to the masks, and (M,) bool: True for objects whose mask has a pixel.

    Sides on which mask and expected box agree within ``slack`` pixels are kept.

    An object without a mask keeps its box. If the mask vanishes because it has become too small, the object keeps its
    box too. If the box lies outside the window, the object gets an empty box.
    """
    after, inside = mask_boxes(masks), clip_boxes(expected, window)
    shown = areas(after) > 0
    gone = ~shown & (areas(inside) < 0.999 * areas(expected))
    fitted = np.where(shown[:, None], fit_to_masks(boxes, inside, after, slack), boxes)
    return fitted * ~gone[:, None], shown
