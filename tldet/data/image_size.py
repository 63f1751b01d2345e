"""Size of an image file: read from a JPEG header, compared with a limit of pixels and with the size in the JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.structures.image import Size

UPRIGHT_FIRST = 5  # EXIF orientations from here on swap width and height
MAX_PIXELS = 178_956_970  # Pillow's own limit; 0.5 GB as RGB
JPEG_START, JPEG_END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA


class Header(NamedTuple):
    """Size of an image as stored, and its EXIF orientation."""

    stored: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        """(height, width) after the EXIF rotation."""
        return self.stored[::-1] if self.orientation >= UPRIGHT_FIRST else self.stored


@dataclass(frozen=True)
class Limits:
    """Conditions that the size in an image's header must satisfy before the image is decoded.

    Attributes:
        max_pixels: largest number of pixels.
        stated: (height, width) in the annotations; height and width may be swapped, as EXIF does. None: unknown.
    """

    max_pixels: int = MAX_PIXELS
    stated: tuple[int, int] | None = None

    def check(self, name: object, height: int, width: int) -> None:
        """Raise :class:`DataError` if an image of this size must not be decoded."""
        if self.stated is not None and sorted(self.stated) != sorted((height, width)):
            stated = f"{self.stated[1]} x {self.stated[0]}"
            raise DataError(f"{name}: is {width} x {height}, but the annotations state {stated}; correct one of them")
        if height * width > self.max_pixels:
            raise self.exceeded(name, f"{width} x {height} pixels")

    def exceeded(self, name: object, size: str) -> DataError:
        """Create the error for an image with too many pixels."""
        limit = f"{self.max_pixels / 1e6:.4g} million pixels"
        return DataError(f"{name}: has {size}, more than the limit of {limit}; resize it or raise max_pixels")


DEFAULT_LIMITS = Limits()


def disagreement(header: Header, stated: Size, boxes: NDArray[np.float64]) -> str:
    """Describe a size mismatch of file and JSON, and which of the two sizes the boxes (N, 4) xywh fit."""
    upright = header.upright
    turned = f" (EXIF orientation {header.orientation})" if header.orientation > 1 else ""
    same = " (the size before the EXIF rotation)" if stated == header.stored else ""
    what = f"sizes differ: file {_text(upright)}{turned}, JSON {_text(stated)}{same}; "
    fits_file, fits_json = _fit(boxes, upright), _fit(boxes, stated)
    if not len(boxes):
        return what + "the image has no boxes: correct width and height in the JSON"
    if fits_file and not fits_json:
        return what + "the boxes fit only the file: correct width and height in the JSON"
    if fits_json and not fits_file:
        cause = "annotated before the rotation: remove the EXIF orientation" if same else "resized later: restore it"
        return what + f"the boxes fit only the JSON, so the image was {cause}"
    if fits_json:
        return what + "the boxes fit both: check which size is right, then correct the JSON or replace the file"
    return what + "the boxes fit neither: correct the annotations"


def _fit(boxes: NDArray[np.float64], size: Size) -> bool:
    ends = boxes[:, :2] + boxes[:, 2:]
    return bool((boxes[:, :2] >= -1).all() and (ends <= np.array([size[1], size[0]]) + 1).all())


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


class _Frame(NamedTuple):
    """Frame header of a JPEG: size as stored, before the EXIF rotation, and number of components."""

    height: int
    width: int
    components: int


def frame_of(content: bytes) -> _Frame | None:
    """Find the frame header of a JPEG, given its first bytes; None if it lies farther back."""
    for marker, place in _segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            sides = content[place + 5 : place + 9]
            return _Frame(int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big"), content[place + 9])
    return None


def scan_start(content: bytes) -> int | None:
    """Find the start of the compressed data of a JPEG, given its first bytes; None if it lies farther back.

    An end marker before this position belongs to a thumbnail in the metadata.
    """
    return next((place for marker, place in _segments(content) if marker == SCAN), None)


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and position of the segments at the start of a JPEG, up to the compressed data."""
    place, marker = 2, 0
    while place + 9 < len(content) and content[place] == 0xFF and marker != SCAN:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        yield marker, place
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
