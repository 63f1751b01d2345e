"""Reading and resizing images: always (H, W, 3) uint8 RGB, rotated upright according to EXIF."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import cv2
import numpy as np

from .errors import DataError
from .files import read_file, require_file
from .image_types import ImageArray, Size

MAX_PIXELS = 178_956_970  # 0.5 GB as RGB; Pillow rejects larger images by default
DIVISOR = 32  # sides of padded images are multiples of it: the coarsest stride of a backbone
END_WITHIN = 4096  # bytes allowed after the end marker, where some cameras append data
MAX_BYTES = 1 << 31  # largest file
JPEG_START, JPEG_END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True)
class Limits:
    """Conditions on the size in an image's header, checked before the image is decoded.

    Attributes:
        max_pixels: largest number of pixels.
        stated: (height, width) in the annotations; height and width may be swapped, as by EXIF rotation. None: unknown.
    """

    max_pixels: int = MAX_PIXELS
    stated: Size | None = None

    def check(self, name: object, height: int, width: int) -> None:
        """Raise DataError if an image of this size must not be decoded."""
        if self.stated is not None and sorted(self.stated) != sorted((height, width)):
            stated = f"{self.stated[1]} x {self.stated[0]}"
            raise DataError(f"{name}: is {width} x {height}, but the annotations state {stated}; correct one of them")
        if height * width > self.max_pixels:
            raise self.too_large(name, f"{width} x {height} pixels")

    def check_upright(self, name: object, size: Size) -> None:
        """Raise DataError if a decoded image is not of the stated size."""
        if self.stated not in (None, size):
            stated = f"{self.stated[1]} x {self.stated[0]}" if self.stated else ""
            raise DataError(
                f"{name}: is {size[1]} x {size[0]} upright, but the annotations state {stated}; its boxes do not fit"
            )

    def too_large(self, name: object, size: str) -> DataError:
        """Create the error for an image with too many pixels."""
        limit = f"{self.max_pixels / 1e6:.4g} million pixels"
        return DataError(f"{name}: has {size}, more than the limit of {limit}; resize it or raise max_pixels")


DEFAULT_LIMITS = Limits()
Decoder = Callable[[bytes, object, Limits], tuple[ImageArray, int]]
Bounds = Size | Callable[[Size], Size | None] | None  # short and long side, also as a function of (height, width)


@dataclass(frozen=True)
class Reduced:
    """An image decoded at 1/``factor`` of its size: (H, W, 3) uint8 RGB, the first of ``frames``."""

    image: ImageArray
    factor: int = 1
    frames: int = 1

    @property
    def whole(self) -> Size:
        """(height, width) of the image at full size."""
        return self.image.shape[0] * self.factor, self.image.shape[1] * self.factor


class ImageReader:
    """Reader of image files.

    OpenCV decodes JPEG files. It is the fastest decoder and applies EXIF rotation, but does not detect truncated files,
    so the end marker is searched first. Another decoder reads all other formats, CMYK JPEGs (which OpenCV decodes to
    wrong colors), and JPEG files with much data after the image (such as a video in a phone's photo).

    Args:
        decode_other: the other decoder, a function of content, name and limits. It returns the first frame, (H, W, 3)
            uint8 RGB and upright, and the number of frames.
    """

    def __init__(self, decode_other: Decoder) -> None:
        self._decode_other = decode_other

    def read(self, path: str | Path, bounds: Bounds, limits: Limits = DEFAULT_LIMITS) -> Reduced:
        """Read an image; a JPEG that will be downscaled by 2 or more is decoded at 1/2, 1/4 or 1/8 of its size.

        Decoding at a reduced size takes a fraction of the time. The factor must divide both sides, so that the image is
        not shifted, and the decoded image must be at least as large as the resized one.

        Args:
            path: the file.
            bounds: short and long side for :func:`fitted_size`; None reads the image at full size.
            limits: conditions on the size, checked before decoding.

        Raises:
            DataError: the file is missing, damaged, not a regular file, not an image, or its size violates the limits.
        """
        image = self.decode(read_bytes(path), path, bounds, limits)
        limits.check_upright(path, image.whole)
        return image

    def decode(self, content: bytes, name: object, bounds: Bounds = None, limits: Limits = DEFAULT_LIMITS) -> Reduced:
        """Decode the content of an image file; see :meth:`read`.

        Args:
            content: the encoded image.
            name: name of the image in messages.
            bounds: short and long side for :func:`fitted_size`; None decodes at full size.
            limits: conditions on the size, checked before decoding.

        Raises:
            DataError: see :meth:`read`.
        """
        if not content:
            raise DataError(f"{name}: is an empty file")
        jpeg = content.startswith(JPEG_START)
        frame = frame_of(content) if jpeg else None
        if frame and min(frame[:2]):
            limits.check(name, *frame[:2])
        end = content.rfind(JPEG_END) if jpeg else 0
        if jpeg and end < (scan_start(content) or 0):
            raise DataError(f"{name}: is a truncated JPEG (no end marker)")
        # OpenCV decodes CMYK to other colors
        if frame and min(frame[:2]) and frame.components != 4 and len(content) - end <= END_WITHIN:
            fitting = bounds(frame[:2]) if callable(bounds) else bounds
            factor = reduction(frame[:2], *fitting) if fitting else 1
            with contextlib.suppress(cv2.error):  # the other decoder reports the reason
                decoded = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[factor])
                if decoded is not None:
                    return Reduced(cast(ImageArray, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)), factor)
        image, frames = self._decode_other(content, name, limits)
        return Reduced(image, frames=frames)


def read_bytes(path: str | Path) -> bytes:
    """Read a regular file of at most ``MAX_BYTES``.

    Raises:
        DataError: the file is missing, too large, or a folder, pipe, device or socket.
    """
    size = require_file(path, DataError).st_size
    if size > MAX_BYTES:
        raise DataError(f"{path}: has {size / 2**30:.1f} GiB, too large for an image")
    return read_file(path, DataError)


def reduction(size: Size, short: int, long: int) -> int:
    """Return the largest of 8, 4, 2 and 1 that divides (height, width) without going below :func:`fitted_size`."""
    height, width = fitted_size(size, short, long)
    for factor in (8, 4, 2):
        whole = size[0] % factor == 0 and size[1] % factor == 0
        if whole and size[0] // factor >= height and size[1] // factor >= width:
            return factor
    return 1


def resize_to(image: ImageArray, size: Size) -> ImageArray:
    """Resize to (height, width): area interpolation if the image shrinks by more than 2, else bilinear."""
    shrink = min(image.shape[0] / size[0], image.shape[1] / size[1])
    method = cv2.INTER_AREA if shrink > 2 else cv2.INTER_LINEAR
    return cast(ImageArray, cv2.resize(image, (size[1], size[0]), interpolation=method))


def fitted_size(size: Size, short: int, long: int) -> Size:
    """Return (height, width) scaled to a short side of ``short``, or less if the long side would exceed ``long``."""
    scale = min(short / min(size), long / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def padded_size(size: Size, divisor: int = DIVISOR) -> Size:
    """Round (height, width) up to multiples of ``divisor``: the padded size of an image in a batch of its own."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


class JpegFrame(NamedTuple):
    """Frame header of a JPEG: size as stored, before the EXIF rotation, and number of components."""

    height: int
    width: int
    components: int


def frame_of(content: bytes) -> JpegFrame | None:
    """Find the frame header in the first bytes of a JPEG; None if they do not contain it."""
    for marker, position in _segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            sides = content[position + 5 : position + 9]
            return JpegFrame(int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big"), content[position + 9])
    return None


def scan_start(content: bytes) -> int | None:
    """Find the start of the compressed data in the first bytes of a JPEG; None if they do not contain it.

    An end marker before this position belongs to a thumbnail in the metadata.
    """
    return next((position for marker, position in _segments(content) if marker == SCAN), None)


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and position of the segments at the start of a JPEG, up to the compressed data."""
    position, marker = 2, 0
    while position + 9 < len(content) and content[position] == 0xFF and marker != SCAN:
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        yield marker, position
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
