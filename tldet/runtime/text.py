"""Text of labels, drawn with OpenCV's ASCII font."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import cv2
import numpy as np

from .drawing import Color, ink_on
from .image_types import ImageArray

_PAD = 2  # pixels around a text
_FONT, _EM = cv2.FONT_HERSHEY_SIMPLEX, 30.0  # pixels per em at scale 1


@lru_cache(maxsize=1024)
def paint_ascii(text: str, size: int, ground: Color) -> ImageArray:
    """Draw one line of text on a colored background: (height, width, 3).

    Args:
        text: the text; accents are removed, and other non-ASCII characters become ``?``.
        size: pixels per em.
        ground: RGB color of the background.
    """
    scale, thickness = size / _EM, max(1, round(size / 12))
    plain = ascii_of(text)
    (width, _), _ = cv2.getTextSize(plain, _FONT, scale, thickness)
    coverage = np.zeros((size + 2 * _PAD, width + 2 * _PAD), np.uint8)
    cv2.putText(coverage, plain, (_PAD, _PAD + round(0.8 * size)), _FONT, scale, 255, thickness, cv2.LINE_AA)
    return ink_on(coverage, ground)


def ascii_of(text: str) -> str:
    """Convert a text to printable ASCII characters."""
    letters = [c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)]
    return "".join(c if " " <= c <= "~" else "?" for c in letters)
