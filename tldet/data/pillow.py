"""Decoding with Pillow: every image format except ordinary JPEG files, which OpenCV decodes."""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from tldet.data.image_formats import START, heif_readable, is_heif
from tldet.errors import DataError
from tldet.runtime.images import MAX_PIXELS, Limits
from tldet.structures.image import ImageArray

_LOCK = threading.Lock()


def decode_with_pillow(content: bytes, name: object, limits: Limits) -> tuple[ImageArray, int]:
    """Decode the first frame of an image file, and count its frames; see :func:`~tldet.data.images.read_image`.

    Raises:
        DataError: the file is damaged or not an image, or its size violates the limits.
    """
    if is_heif(content[:START]) and not heif_readable():
        raise DataError(f"{name}: is a HEIF image; install the package pillow-heif to read it, or convert it to JPEG")
    with _naming(name), _opened(content, name, limits) as opened:
        limits.check(name, opened.height, opened.width)
        return _upright(opened), frames_of(opened)


def frames_of(image: Any) -> int:
    """Return the number of frames of an opened image; further images in a JPEG (previews, depth) do not count."""
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _opened(content: bytes, name: object, limits: Limits) -> Any:
    from PIL import Image

    if is_heif(content[:START]):
        return importlib.import_module("pillow_heif").HeifImageFile(io.BytesIO(content))
    try:
        if limits.max_pixels <= MAX_PIXELS:
            return Image.open(io.BytesIO(content))
        with _LOCK:  # the limit is a variable of the module
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(io.BytesIO(content))
            finally:
                Image.MAX_IMAGE_PIXELS = before
    except Image.DecompressionBombError:
        raise limits.too_large(name, "too many pixels") from None


def from_pillow(image: Any, name: object = "image") -> ImageArray:
    """Convert a PIL image to (H, W, 3) uint8 RGB, rotated upright, as :func:`~tldet.data.images.read_image` does.

    Args:
        image: the PIL image.
        name: name of the image in messages; by default its file name.

    Raises:
        DataError: the image is damaged.
    """
    with _naming(getattr(image, "filename", "") or name):
        return _upright(image)


@contextlib.contextmanager
def _naming(name: object) -> Iterator[None]:
    """Convert the exceptions of Pillow for damaged images and EXIF data to a DataError that names the image."""
    from PIL import Image

    broken = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error, MemoryError)
    try:
        yield
    except (*broken, Image.DecompressionBombError) as error:
        text = " ".join(str(error).split("<")[0].split()) or type(error).__name__
        raise DataError(f"{name}: is not a readable image ({text})") from None


def _upright(image: Any) -> ImageArray:
    from PIL import ImageOps

    image.load()
    return _to_rgb(cast(Any, ImageOps.exif_transpose(image)))


def _to_rgb(image: Any) -> ImageArray:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it contains NaN or infinite values")
        scale = 255 / 65535 if image.mode.startswith("I") else 255 / max(float(values.max()), 1e-9)
        gray = (values * scale).round().clip(0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))
