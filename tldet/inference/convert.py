"""Conversion of all image types that :class:`~tldet.inference.predictor.Predictor` accepts to (H, W, 3) uint8 RGB."""

from __future__ import annotations

import http.client
import os
import re
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tldet.data.images import decode_image, read_reduced
from tldet.data.pillow import from_pillow
from tldet.errors import DataError, NotAnImage
from tldet.runtime.arrays import Channels, rgb_array
from tldet.runtime.images import DEFAULT_LIMITS, MAX_BYTES, Bounds, Limits, Reduced
from tldet.structures.image import ImageArray

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
URL_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"  # kept unchanged; all others are percent-encoded
_TIMEOUT = 30  # seconds without a response
_BLOCK = 1 << 20
ONE = (str, bytes, bytearray, memoryview, os.PathLike, Reduced, Mapping)  # iterable, but not lists of images


def is_list(images: Any) -> bool:
    """Return True for lists, iterators and (N, ...) arrays of images, False for one image."""
    if isinstance(images, ONE) or hasattr(images, "read") or _is_pillow(images):
        return False
    dimensions = getattr(images, "ndim", None)
    return dimensions in (1, 4) if isinstance(dimensions, int) else isinstance(images, Iterable)


def open_image(
    image: Any,
    bounds: Bounds,
    *,
    channels: Channels = "rgb",
    limits: Limits = DEFAULT_LIMITS,
    name: str = "image",
) -> Reduced:
    """Read or convert one image.

    Args:
        image: a path or URL, encoded content as bytes or a binary file, a PIL image, or an array or tensor.
        bounds: see :meth:`~tldet.runtime.images.ImageReader.read`.
        channels: channel order of arrays and tensors.
        limits: conditions on the size of encoded images.
        name: name of an image without a path, in messages.

    Raises:
        DataError: the image cannot be read or converted; :class:`NotAnImage`, also a TypeError, for other objects.
    """
    if isinstance(image, Reduced):
        return image
    if isinstance(image, str) and URL.match(image):
        return decode_image(_download(image), image, bounds, limits)
    if isinstance(image, (str, os.PathLike)):
        path = os.fsdecode(image)
        if not path:
            raise DataError(f"{name}: the path is empty")
        return read_reduced(path, bounds, limits)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), name, bounds, limits)
    if hasattr(image, "read"):
        label = getattr(image, "name", None)
        label = label if isinstance(label, str) else name
        return decode_image(_content(image, label), label, bounds, limits)
    return Reduced(from_pillow(image, name) if _is_pillow(image) else from_array(image, channels, name))


def _is_pillow(image: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def _content(file: Any, name: str) -> bytes:
    """Read a binary file object to its end."""
    blocks, size = [], 0
    try:
        while block := file.read(_BLOCK):
            if not isinstance(block, (bytes, bytearray, memoryview)):
                raise NotAnImage(f"{name}: reading gives {type(block).__name__}, not bytes; open it in binary mode")
            blocks.append(bytes(block))
            size += len(blocks[-1])
            if size > MAX_BYTES:
                raise DataError(f"{name}: has more than {MAX_BYTES >> 30} GiB, too large for an image")
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: closed, or text that is not UTF-8
        raise DataError(f"{name}: cannot be read: {error}") from None
    return b"".join(blocks)


def _download(url: str) -> bytes:
    scheme = url.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise DataError(f"{url}: {scheme} addresses cannot be read; use an http or https URL, or a path")
    try:
        answer = urllib.request.urlopen(quote(url, safe=URL_CHARACTERS), timeout=_TIMEOUT)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: cannot be downloaded: {reason}") from None
    with answer:
        return _content(answer, url)


def from_array(image: Any, channels: Channels = "rgb", name: str = "image") -> ImageArray:
    """Convert an array or tensor to (H, W, 3) uint8 RGB.

    Args:
        image: (H, W), (H, W, C) or (C, H, W) with 1 (gray), 2 (gray and alpha), 3 or 4 (color and alpha) channels. If
            the shape fits both layouts, an array is (H, W, C) and a tensor (C, H, W). uint8; uint16, scaled by 1/257;
            float in 0..1; or bool. Alpha is composited over white.
        channels: channel order of 3 and 4 channels.
        name: name of the image in messages.

    Raises:
        DataError: the values are not in the range of the type; :class:`NotAnImage` for other shapes and types.
    """
    return rgb_array(_to_numpy(image, name), channels, name, channels_first=isinstance(image, Tensor))


def _to_numpy(image: Any, name: str) -> NDArray[Any]:
    """Convert an array-like object to a numpy array."""
    if isinstance(image, Tensor):
        try:
            tensor = image.detach().cpu()
            return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantized, without storage
            raise NotAnImage(f"{name}: the tensor cannot be read ({str(error).splitlines()[0]})") from None
    if isinstance(getattr(image, "ndim", None), int) and hasattr(image, "__array__"):
        return np.asarray(image)
    hint = " (cv2.imread returns None for a file it cannot read)" if image is None else ""
    raise NotAnImage(
        f"{name}: {type(image).__name__} is not an image{hint}; use a path, URL, bytes, binary file, PIL "
        "image, array or tensor"
    )
