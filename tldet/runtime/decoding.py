"""Decoding of image files with OpenCV, to the same pixels as with Pillow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .headers import BMP, has_alpha_mask, orientation_of, size_of, unreadable
from .image_types import ImageArray
from .images import JPEG_START, ImageReader, Limits, frame_of

_TURNS: dict[int, Callable[[Any], Any]] = {  # by EXIF orientation
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: lambda image: np.rot90(image),
}


def decode_with_opencv(content: bytes, name: object, limits: Limits) -> tuple[ImageArray, int]:
    """Decode the first frame of an image file; see :class:`~.images.ImageReader`.

    Raises:
        DataError: the file is damaged, OpenCV does not support its format or colors, or its size violates the limits.
    """
    if size := size_of(content):
        limits.check(name, *size)
    jpeg = content.startswith(JPEG_START)
    frame = frame_of(content) if jpeg else None
    wrong = "CMYK colors" if frame and frame.components == 4 else unreadable(content)
    if wrong:
        raise DataError(f"{name}: has {wrong}, which OpenCV does not decode correctly; convert it to RGB")
    plain = jpeg or (content.startswith(BMP) and not has_alpha_mask(content))  # JPEG is rotated by OpenCV
    try:
        flags = cv2.IMREAD_COLOR if plain else cv2.IMREAD_UNCHANGED
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise DataError(f"{name}: is not an image that OpenCV can read; convert it to JPEG or PNG")
    limits.check(name, decoded.shape[0], decoded.shape[1])
    image = _to_rgb(decoded, name)
    turn = _TURNS.get(orientation_of(content))
    return (image if turn is None else np.ascontiguousarray(turn(image))), 1


def _to_rgb(pixels: NDArray[Any], name: object) -> ImageArray:
    """Convert gray, BGR or BGRA pixels of 8 or 16 bits."""
    if pixels.dtype == np.uint16:
        pixels = (gray_to_uint8(pixels) if pixels.ndim == 2 else pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise DataError(f"{name}: has pixels of type {pixels.dtype}; convert it to 8 bits")
    if pixels.ndim == 2:
        return cast(ImageArray, cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    if pixels.shape[2] == 4:
        return over_white(cast(ImageArray, cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA)))
    return cast(ImageArray, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def gray_to_uint8(values: NDArray[np.uint16]) -> ImageArray:
    """Scale 16-bit values to 8 bits, rounded."""
    return np.asarray((values.astype(np.uint32) + 128) // 257, np.uint8)


def over_white(image: ImageArray) -> ImageArray:
    """Composite (H, W, 4) RGBA over white: (H, W, 3), rounded as ``PIL.Image.alpha_composite`` does."""
    alpha = image[..., 3:].astype(np.uint32)
    total = (image[..., :3] * alpha + 255 * (255 - alpha) + 128) << 7
    return np.ascontiguousarray(((total >> 8) + total) >> 15, np.uint8)


READER = ImageReader(decode_with_opencv)
