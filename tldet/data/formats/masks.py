"""Masks of formats that store pixels, as COCO's run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError


def rle_of(mask: NDArray[np.uint8], who: str) -> dict[str, Any]:
    """Encode a mask (H, W), 0 for background, as a compressed RLE of COCO.

    Raises:
        DataError: the mask is empty; the message names ``who``.
    """
    from pycocotools import mask as coco_mask

    if not mask.any():
        raise DataError(f"{who}: the mask is empty")
    found = coco_mask.encode(np.asfortranarray((mask > 0).astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}
