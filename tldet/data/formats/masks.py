"""Masks of formats that store pixels, as COCO's run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.runtime.images import MAX_PIXELS
from tldet.structures import rle
from tldet.structures.image import Size


def empty_mask(size: Size, who: str) -> NDArray[np.uint8]:
    """Return an empty mask (H, W).

    Raises:
        DataError: the stated size has more pixels than an image may have; the message names ``who``.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{who}: the image size {size[1]} x {size[0]} is too large for a mask; correct it")
    return np.zeros(size, np.uint8)


def rle_of(mask: NDArray[np.uint8], who: str) -> dict[str, Any]:
    """Encode a mask (H, W), 0 for background, as a compressed RLE of COCO.

    Raises:
        DataError: the mask is empty; the message names ``who``.
    """
    if not mask.any():
        raise DataError(f"{who}: the mask is empty")
    return rle.encode(mask)
