"""Small images for an HTML page, with a box drawn on them."""

from __future__ import annotations

from html import escape
from math import isfinite
from pathlib import Path

import cv2
import numpy as np

from tldet.data.checks.findings import Corners
from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.runtime.images import fitted_size, resize_to
from tldet.structures.image import ImageArray
from tldet.visualize.page.images import jpeg_url

_SHORT, _LONG = 200, 320  # pixels
_QUALITY = 75
_COLOR = (230, 60, 40)
_FAR = 100_000  # pixels beyond which a box is not drawn


def image_tag(path: Path, box: Corners | None) -> str:
    """Return an ``img`` element with its content; empty if the image cannot be read."""
    try:
        image = read_image(path)
    except DataError:
        return ""
    height, width = image.shape[:2]
    size = fitted_size((height, width), _SHORT, _LONG)
    small = image if min(size) > min(height, width) else resize_to(image, size)
    if box is not None and all(isfinite(value) and abs(value) < _FAR for value in box):
        small = _with_box(small, box, small.shape[1] / width, small.shape[0] / height)
    return f'<img alt="{escape(path.name, quote=True)}" src="{jpeg_url(small, _QUALITY)}">'


def _with_box(image: ImageArray, box: Corners, right: float, down: float) -> ImageArray:
    drawn = np.ascontiguousarray(image).copy()
    x0, y0, x1, y1 = (round(value * scale) for value, scale in zip(box, (right, down, right, down), strict=True))
    cv2.rectangle(drawn, (x0, y0), (x1, y1), (255, 255, 255), 3)
    cv2.rectangle(drawn, (x0, y0), (x1, y1), _COLOR, 1)
    return np.asarray(drawn, np.uint8)
