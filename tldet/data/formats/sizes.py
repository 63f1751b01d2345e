"""Sizes of images whose format does not state them, read from the files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tldet.data.checks.headers import read_header
from tldet.data.formats.records import ImageRecord
from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.structures.image import Size
from tldet.system.inputs import is_file

_THREADS = 8


def fill_sizes(images: Sequence[ImageRecord]) -> None:
    """Set the missing sizes to those of the files, rotated upright according to EXIF.

    Raises:
        DataError: an image is missing or unreadable; the message names the annotation file and element.
    """
    unknown = [image for image in images if image.size is None]
    with ThreadPoolExecutor(_THREADS) as pool:
        for image, size in zip(unknown, pool.map(_size, unknown), strict=True):
            image.size = size


def _size(image: ImageRecord) -> Size:
    if not is_file(image.path):
        raise DataError(f"{image.who()}: its image {image.path} is missing; add it, or choose a folder with --images")
    try:
        header = read_header(image.path)
        if header is not None:
            return header.upright
        height, width = read_image(image.path).shape[:2]
    except DataError as error:
        raise DataError(f"{error} (image of {image.who()})" if image.source != image.path else str(error)) from None
    return height, width
