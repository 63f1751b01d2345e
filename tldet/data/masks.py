"""Decoding of instance masks, resampling without a shift, and boxes around masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.runtime.images import resize_to
from tldet.structures import rle
from tldet.structures.image import Size

Boxes = NDArray[np.float32]
MaskPixels = NDArray[np.uint8]
_Floats = NDArray[np.float64]
FULL = 254  # gray value of an object while its mask is resampled; a pixel that is half covered has 127


def decode_mask(segmentation: Any, size: Size) -> MaskPixels:
    """Decode COCO polygons, an RLE or a compressed RLE to a mask (H, W) of 0 and 1; a missing one to an empty mask.

    Raises:
        DataError: the segmentation is invalid for ``size``; the caller puts the annotation's name before the message.
    """
    from pycocotools import mask as coco_mask

    if rle.is_none(segmentation):
        return np.zeros(size, np.uint8)
    if problem := rle.segmentation_problem(segmentation, size):
        raise DataError(problem)
    return np.asarray(coco_mask.decode(rle.to_rle(segmentation, size)), np.uint8)


def to_gray(masks: MaskPixels) -> MaskPixels:
    """Convert masks of 0 and 1 to gray images for interpolation."""
    return np.multiply(masks, FULL, dtype=np.uint8)


def from_gray(gray: MaskPixels) -> MaskPixels:
    """Convert gray images to masks of 0 and 1: a pixel is 1 if more than half of it is covered."""
    return (gray > FULL // 2).view(np.uint8)


def resize_masks(masks: MaskPixels, size: Size) -> MaskPixels:
    """Resize masks (N, H, W) to (height, width) with the interpolation of their image.

    Nearest-neighbor interpolation would shift them: ``cv2.INTER_NEAREST`` by half a pixel,
    ``INTER_NEAREST_EXACT`` by half a source pixel if the image shrinks by an even factor.
    """
    if masks.shape[1:] == size:
        return masks
    resized = [from_gray(resize_to(to_gray(mask), size)) for mask in masks]
    return np.stack(resized) if resized else np.zeros((0, *size), np.uint8)


def mask_boxes(masks: MaskPixels) -> Boxes:
    """Return (N, 4) xyxy boxes around the pixels of masks (N, H, W); all zero for a mask without pixels."""
    rectangles = np.array([cv2.boundingRect(mask) for mask in masks], np.float32).reshape(-1, 4)
    rectangles[:, 2:] += rectangles[:, :2]
    return rectangles


def pixel_counts(masks: MaskPixels) -> _Floats:
    """Count the pixels of masks (N, H, W): (N,)."""
    return np.array([cv2.countNonZero(mask) for mask in masks], np.float64)


def areas(boxes: NDArray[np.floating]) -> _Floats:
    """Compute the areas (N,) of xyxy boxes (N, 4)."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(1, dtype=np.float64))


def clip_boxes(boxes: Boxes, window: Sequence[float]) -> Boxes:
    """Clip boxes (N, 4) to an xyxy window."""
    x0, y0, x1, y1 = window
    return np.clip(boxes, (x0, y0, x0, y0), (x1, y1, x1, y1)).astype(np.float32)


def fit_to_masks(boxes: Boxes, expected: Boxes, found: Boxes, tolerance: float = 0.0) -> Boxes:
    """Move the sides of boxes (N, 4) to the mask if the transformed mask does not reach the transformed box.

    A cropped or rotated object is smaller than its cropped or rotated box. Sides on which mask and box agree keep the
    annotated value, which is more precise than whole pixels.

    Args:
        boxes: (N, 4) boxes after a transform.
        expected: (N, 4) extents of the masks before the transform, transformed as boxes.
        found: (N, 4) extents of the transformed masks.
        tolerance: distance in pixels up to which ``expected`` and ``found`` agree.
    """
    fitted = np.where(np.abs(expected - found) <= tolerance, boxes, found)
    upright = (fitted[:, 2:] > fitted[:, :2]).all(1, keepdims=True)
    return np.where(upright, fitted, found).astype(np.float32)


def cut_boxes(boxes: Boxes, masks: MaskPixels | None, window: tuple[int, int, int, int]) -> tuple[Boxes, _Floats]:
    """Return the box (N, 4) of each object's visible part in an xyxy window, and its visible fraction (N,).

    Both are computed from the mask, or from the box if the object has no mask. A box without area means that the object
    is not visible.

    Args:
        boxes: (N, 4) of the whole objects.
        masks: (N, H, W) of the whole objects, or None. An empty mask counts as no mask.
        window: integer pixels.
    """
    clipped = clip_boxes(boxes, window)
    share = areas(clipped) / areas(boxes)
    if masks is None:
        return clipped, share
    x0, y0, x1, y1 = window
    part = masks[:, y0:y1, x0:x1]
    before, after = mask_boxes(masks), mask_boxes(part) + np.array((x0, y0, x0, y0), np.float32)
    own, shown = areas(before) > 0, areas(after) > 0
    fitted = fit_to_masks(clipped, clip_boxes(before, window), after) * shown[:, None]
    share = np.where(own, pixel_counts(part) / np.maximum(pixel_counts(masks), 1), share)
    return np.where(own[:, None], fitted, clipped), share
