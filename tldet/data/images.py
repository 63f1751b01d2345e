"""Images of datasets: JPEG files are decoded by OpenCV, all other formats by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldet.data.pillow import decode_with_pillow
from tldet.runtime.images import DEFAULT_LIMITS, ImageReader, Limits
from tldet.structures.image import ImageArray
from tldet.text import counted

_READER = ImageReader(decode_with_pillow)
read_reduced, decode_image = _READER.read, _READER.decode


def read_image(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> ImageArray:
    """Read an image as (H, W, 3) uint8 RGB, rotated upright.

    OpenCV decodes JPEG files. It is the fastest decoder and applies EXIF, but does not detect a truncated file, so the
    end marker is searched first. Pillow decodes all other formats, and JPEG files followed by much other data (such as
    a video in a phone's photo); it rejects damaged files. Alpha is composited over white, 16 bits are scaled to 8, and
    the first of several frames is read.

    Args:
        path: the file.
        limits: conditions on the size, checked before decoding.

    Raises:
        DataError: the file is missing, damaged, not a regular file, not an image, or its size violates the limits.
    """
    return read_reduced(path, None, limits).image


def several_frames(names: Sequence[str]) -> str:
    """Return a message about images of which only the first frame is used; it counts them and names the first."""
    named = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    have = "has" if len(names) == 1 else "have"
    return f"{counted(len(names), 'image')} {have} several frames, of which the first is used ({named})"
