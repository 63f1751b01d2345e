"""Conversion of paths, encoded content and arrays to (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .decoding import READER, gray_to_uint8, over_white
from .errors import DataError, NotAnImage
from .image_types import ImageArray
from .images import Bounds, Reduced

Channels = Literal["rgb", "bgr"]
_SLACK = 0.01  # tolerance beyond 0..1 in float images, for overshoot of interpolation
_CONTENT = (bytes, bytearray, memoryview)


def is_array_list(images: Any) -> bool:
    """Return True for lists, iterators and (N, ...) arrays of images, False for one image."""
    if isinstance(images, (str, os.PathLike, *_CONTENT)):
        return False
    dimensions = getattr(images, "ndim", None)
    return dimensions in (1, 4) if isinstance(dimensions, int) else isinstance(images, Iterable)


def open_array(image: Any, bounds: Bounds, *, channels: Channels = "rgb", name: str = "image") -> Reduced:
    """Read or convert one image.

    Args:
        image: a path, encoded content as bytes, or an array as in :func:`rgb_array`.
        bounds: see :meth:`~.images.ImageReader.read`.
        channels: channel order of arrays.
        name: name of an image without a path, in messages.

    Raises:
        DataError: the image cannot be read or converted; :class:`NotAnImage`, also a TypeError, for other objects.
    """
    if isinstance(image, (str, os.PathLike)):
        path = os.fsdecode(image)
        if not path:
            raise DataError(f"{name}: the path is empty")
        return READER.read(path, bounds)
    if isinstance(image, _CONTENT):
        return READER.decode(bytes(image), name, bounds)
    if not isinstance(image, np.ndarray):
        hint = " (cv2.imread returns None for a file it cannot read)" if image is None else ""
        raise NotAnImage(f"{name}: {type(image).__name__} is not an image{hint}; use a path, bytes or an array")
    return Reduced(rgb_array(image, channels, name))


def rgb_array(array: NDArray[Any], channels: Channels, name: str, *, channels_first: bool = False) -> ImageArray:
    """Convert an array to (H, W, 3) uint8 RGB.

    Args:
        array: (H, W), (H, W, C) or (C, H, W) with 1 (gray), 2 (gray and alpha), 3 or 4 (color and alpha) channels.
            uint8; uint16, scaled by 1/257; float in 0..1; or bool. Alpha is composited over white.
        channels: channel order of arrays with 3 or 4 channels.
        name: name of the image in messages.
        channels_first: if the shape fits both layouts, it is (C, H, W).

    Raises:
        DataError: float values are outside 0..1; :class:`NotAnImage` for other shapes and types.
    """
    pixels = _to_uint8(_last_channels(array, channels_first, name), name)
    count = pixels.shape[2]
    if count > 2 and channels == "bgr":
        pixels = pixels[..., [2, 1, 0, 3][:count]]
    pixels = np.ascontiguousarray(pixels)
    if count == 1:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    if count == 3:
        return pixels
    return over_white(pixels[..., [0, 0, 0, 1]] if count == 2 else pixels)


def _last_channels(array: NDArray[Any], channels_first: bool, name: str) -> NDArray[Any]:
    """Return an (H, W, C) view of an (H, W), (H, W, C) or (C, H, W) array."""
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim == 3:
        first, last = (array.shape[axis] in (1, 2, 3, 4) for axis in (0, 2))
        if first and (channels_first or not last):
            array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise NotAnImage(f"{name}: shape {array.shape} is not an image; use (H, W), (H, W, C) or (C, H, W), C 1 to 4")
    if not array.size:
        raise DataError(f"{name}: shape {array.shape} has no pixels")
    return array


def _to_uint8(array: NDArray[Any], name: str) -> ImageArray:
    if array.dtype == np.uint8:
        return np.asarray(array, np.uint8)
    if array.dtype == np.bool_:
        return np.asarray(array.astype(np.uint8) * 255, np.uint8)
    if array.dtype == np.uint16:
        return gray_to_uint8(array)
    if array.dtype.kind != "f":
        raise NotAnImage(f"{name}: values are {array.dtype}; use uint8, uint16, bool, or float in 0..1")
    low, high = float(array.min()), float(array.max())
    if not -_SLACK <= low <= high <= 1 + _SLACK:  # also for NaN
        raise DataError(f"{name}: float values from {low:.4g} to {high:.4g}; use float in 0..1, or uint8 in 0..255")
    return np.asarray((array.clip(0, 1) * 255).round(), np.uint8)
