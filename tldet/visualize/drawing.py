"""Drawing of boxes and masks on images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
import torch

from tldet.errors import DataError
from tldet.structures.image import ImageArray
from tldet.structures.masks import windows
from tldet.visualize import labels

if TYPE_CHECKING:
    from PIL.Image import Image

    from tldet.structures.detections import Detections

Drawable: TypeAlias = "ImageArray | Image | str | PathLike[str]"
Color = tuple[int, int, int]
# Okabe and Ito 2008, distinguishable with color blindness; further classes get lighter and darker shades.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
TEXT_SIZE = 1 / 36  # em, relative to the short side of the image


@cache
def color_of(label: int) -> Color:
    """Return the RGB color of a class."""
    base, round_ = PALETTE[label % len(PALETTE)], label // len(PALETTE)
    factor = (1.0, 0.65, 1.3, 0.45)[round_ % 4]
    red, green, blue = (int(min(255, c * factor)) for c in base)
    return red, green, blue


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
    colors = [color_of(label) for label in detections.labels.tolist()]
    if detections.masks is not None:
        masks = detections.masks[torch.arange(len(detections) - 1, -1, -1)]
        for (top, left, shape), color in zip(windows(masks), reversed(colors), strict=True):
            inside = shape.cpu().numpy()
            part = canvas[top : top + inside.shape[0], left : left + inside.shape[1]]
            part[inside] = (0.55 * part[inside] + 0.45 * np.array(color)).astype(np.uint8)
    width = max(1, round(min(canvas.shape[:2]) / 300))
    for (x0, y0, x1, y1), color in zip(
        reversed(detections.boxes.round().int().tolist()), reversed(colors), strict=True
    ):
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, width, cv2.LINE_AA)
    _write_labels(canvas, detections, colors, scores=scores)
    return np.asarray(canvas, np.uint8)


def _write_labels(canvas: ImageArray, detections: Detections, grounds: Sequence[Color], *, scores: bool) -> None:
    """Write names and scores on the ``grounds``; positions are chosen for the best detection first."""
    size = max(11, round(min(canvas.shape[:2]) * TEXT_SIZE))
    texts = [[name] for name in detections.names()]
    if scores:
        texts = [[name, f"{score:.2f}"] for (name,), score in zip(texts, detections.scores.tolist(), strict=True)]
    painted = [[labels.paint(text, size, ground) for text in row] for row, ground in zip(texts, grounds, strict=True)]
    sizes = [(parts[0].shape[0], sum(part.shape[1] for part in parts)) for parts in painted]
    corners = labels.place_labels(sizes, detections.boxes.cpu().numpy(), canvas.shape[:2])
    for parts, (x, y) in reversed(list(zip(painted, corners, strict=True))):
        for part in parts:
            spot = canvas[y : y + part.shape[0], x : x + part.shape[1]]
            spot[...] = part[: spot.shape[0], : spot.shape[1]]
            x += part.shape[1]


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
