"""Reading images: always (H, W, 3) uint8 RGB, rotated upright according to EXIF."""

from __future__ import annotations

import contextlib
import importlib
import io
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from tldet.data.image_formats import START, heif_readable, is_heif
from tldet.data.image_size import DEFAULT_LIMITS, JPEG_END, JPEG_START, MAX_PIXELS, Limits, frame_of, scan_start
from tldet.errors import DataError
from tldet.structures.image import ImageArray
from tldet.system.inputs import is_file, read_file, require_file

END_WITHIN = 4096  # cameras append data after the end marker
MAX_BYTES = 1 << 31  # of a file
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_PILLOW_LIMIT = threading.Lock()


@dataclass(frozen=True)
class Reduced:
    """An image at 1/``factor`` of its size: image (H, W, 3) uint8 RGB."""

    image: ImageArray
    factor: int = 1

    @property
    def whole(self) -> tuple[int, int]:
        """(height, width) of the image itself."""
        return self.image.shape[0] * self.factor, self.image.shape[1] * self.factor


def read_image(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> ImageArray:
    """Read an image as (H, W, 3) uint8 RGB, rotated upright.

    JPEG is decoded by OpenCV, which is fastest and applies EXIF but does not notice a truncated file; so its end marker
    is searched first. Everything else, including a JPEG followed by much other data (a video in a phone's photograph),
    is decoded by Pillow, which rejects damaged files. Alpha is composited over white, 16 bits are scaled to 8, and the
    first of several frames is read.

    Args:
        path: the file.
        limits: conditions on the size, checked before decoding.

    Raises:
        DataError: the file is missing, damaged, not a regular file, not an image, or its size violates the limits.
    """
    return read_reduced(path, None, limits).image


def read_reduced(path: str | Path, bounds: tuple[int, int] | None, limits: Limits = DEFAULT_LIMITS) -> Reduced:
    """Read an image; a JPEG that will be scaled down much is read at 1/2, 1/4 or 1/8 of its size.

    That takes a fraction of the time, since a JPEG's blocks of 8 x 8 pixels are decoded as smaller ones. It is done
    only if the factor divides both sides, so that nothing is shifted, and if the result is no smaller than the size to
    which the image will be scaled.

    Args:
        path: the file.
        bounds: short and long side for :func:`fitted_size`; None reads the image at full size.
        limits: conditions on the size, checked before decoding.

    Raises:
        DataError: see :func:`read_image`.
    """
    return decode_image(read_bytes(path), path, bounds, limits)


def read_bytes(path: str | Path) -> bytes:
    """Read a regular file of at most ``MAX_BYTES``.

    Raises:
        DataError: the file is missing, too large, or a folder, pipe, device or socket.
    """
    size = require_file(path, DataError).st_size
    if size > MAX_BYTES:
        raise DataError(f"{path}: has {size / 2**30:.1f} GiB, too large for an image")
    return read_file(path, DataError)


def decode_image(
    content: bytes, name: object, bounds: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS
) -> Reduced:
    """Decode the content of an image file; see :func:`read_reduced`.

    Args:
        content: the encoded image.
        name: name of the image in messages.
        bounds: short and long side for :func:`fitted_size`; None decodes at full size.
        limits: conditions on the size, checked before decoding.

    Raises:
        DataError: see :func:`read_image`.
    """
    if not content:
        raise DataError(f"{name}: is an empty file")
    jpeg = content.startswith(JPEG_START)
    frame = frame_of(content) if jpeg else None
    if frame and min(frame[:2]):
        limits.check(name, *frame[:2])
    end = content.rfind(JPEG_END) if jpeg else 0
    if jpeg and end < (scan_start(content) or 0):
        raise DataError(f"{name}: is a JPEG that breaks off before its end")
    # OpenCV decodes CMYK to other colors
    if frame and min(frame[:2]) and frame.components != 4 and len(content) - end <= END_WITHIN:
        factor = reduction(frame[:2], *bounds) if bounds else 1
        with contextlib.suppress(cv2.error):  # Pillow reports the reason
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[factor])
            if decoded is not None:
                return Reduced(cast(ImageArray, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)), factor)
    return Reduced(_decode_with_pillow(content, name, limits))


def reduction(size: tuple[int, int], short: int, long: int) -> int:
    """The greatest of 8, 4, 2 and 1 that divides (height, width) and leaves at least :func:`fitted_size` of it."""
    height, width = fitted_size(size, short, long)
    for factor in (8, 4, 2):
        whole = size[0] % factor == 0 and size[1] % factor == 0
        if whole and size[0] // factor >= height and size[1] // factor >= width:
            return factor
    return 1


def _decode_with_pillow(content: bytes, name: object, limits: Limits) -> ImageArray:
    if is_heif(content[:START]) and not heif_readable():
        raise DataError(f"{name}: is a HEIF image; install the package pillow-heif to read it, or convert it to JPEG")
    with _naming(name), _opened(content, name, limits) as opened:
        limits.check(name, opened.height, opened.width)
        return _upright(opened)


def _opened(content: bytes, name: object, limits: Limits) -> Any:
    from PIL import Image

    if is_heif(content[:START]):
        return importlib.import_module("pillow_heif").HeifImageFile(io.BytesIO(content))
    try:
        if limits.max_pixels <= MAX_PIXELS:
            return Image.open(io.BytesIO(content))
        with _PILLOW_LIMIT:  # a variable of its module
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(io.BytesIO(content))
            finally:
                Image.MAX_IMAGE_PIXELS = before
    except Image.DecompressionBombError:
        raise limits.exceeded(name, "too many pixels") from None


def from_pillow(image: Any, name: object = "image") -> ImageArray:
    """Convert a PIL image to (H, W, 3) uint8 RGB, rotated upright, as :func:`read_image` reads its file.

    Args:
        image: the PIL image.
        name: name of the image in messages; by default its file name.

    Raises:
        DataError: its file is damaged.
    """
    with _naming(getattr(image, "filename", "") or name):
        return _upright(image)


@contextlib.contextmanager
def _naming(name: object) -> Iterator[None]:
    """Turn what Pillow raises for a damaged image, or damaged EXIF data, into one line with its name."""
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
        scale = 255 / 65535 if image.mode.startswith("I") else 255 / max(float(values.max()), 1e-9)
        gray = (values * scale).round().clip(0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def resize_to(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    """Resize to (height, width): by area when shrinking to less than half, else bilinear."""
    shrink = min(image.shape[0] / size[0], image.shape[1] / size[1])
    method = cv2.INTER_AREA if shrink > 2 else cv2.INTER_LINEAR
    return cast(ImageArray, cv2.resize(image, (size[1], size[0]), interpolation=method))


def fitted_size(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """The size whose short side is ``short``, or whose long side is ``long`` where it would pass it."""
    scale = min(short / min(size), long / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def require_images(folder: Path, names: Sequence[str], annotations: Path) -> None:
    """Raise :class:`DataError` that names the first images of a JSON missing in its folder and counts them."""
    missing = [name for name in names if not is_file(folder / name)]
    if missing:
        raise missing_images(folder, missing, len(names), annotations)


def missing_images(folder: Path, missing: Sequence[str], total: int, annotations: Path) -> DataError:
    """Create the error for missing images; it counts them and names the first."""
    named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return DataError(f"{folder}: {len(missing)} of {total} images of {annotations} missing: {named}")
