"""Drawing of boxes and masks on images."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from tldet.errors import DataError
from tldet.runtime.drawing import draw_objects
from tldet.structures.image import ImageArray
from tldet.structures.masks import windows
from tldet.visualize.labels import paint

if TYPE_CHECKING:
    from PIL.Image import Image

    from tldet.structures.detections import Detections

Drawable: TypeAlias = "ImageArray | Image | str | PathLike[str]"


def pixels_of(image: Drawable) -> ImageArray:
    """Return a new (H, W, 3) uint8 RGB array of an image: a path (rotated according to EXIF), a PIL image or an array.

    Raises:
        DataError: the file cannot be read, or the array has another shape or type.
    """
    from PIL import Image, ImageOps

    if isinstance(image, (str, PathLike)):
        try:
            with Image.open(image) as opened:
                image = ImageOps.exif_transpose(opened)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{image}: cannot be read as an image: {error}") from None
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
        shape = f"{getattr(image, 'dtype', '')} {tuple(getattr(image, 'shape', ()))}".strip()
        raise DataError(f"draw: image must be (H, W, 3) uint8 RGB, not {type(image).__name__} {shape}")
    return np.array(image, np.uint8)


def draw(image: Drawable, detections: Detections, *, scores: bool = True) -> ImageArray:
    """Draw boxes, masks and labels that avoid each other on a copy of an image; the best detection is on top.

    Args:
        image: a path, a PIL image or a (H, W, 3) uint8 RGB array.
        detections: the detections.
        scores: also write the scores.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the image cannot be read.
    """
    canvas = pixels_of(image)
    shapes = None
    if detections.masks is not None:
        shapes = windows(detections.masks[torch.arange(len(detections) - 1, -1, -1)])
    named = detections.labels.tolist(), detections.names(), detections.scores.tolist() if scores else None
    draw_objects(canvas, detections.boxes.cpu().numpy(), *named, shapes, paint)
    return canvas


def grid(images: Sequence[ImageArray], columns: int = 3, gap: int = 6) -> ImageArray:
    """Arrange images in a grid on white, each in a cell of the size of the largest image."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = -(-len(images) // columns)
    shape = (rows * (height + gap) - gap, min(columns, len(images)) * (width + gap) - gap, 3)
    sheet = np.full(shape, 255, np.uint8)
    for number, image in enumerate(images):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet
