"""Comparison of the size of an image file with the size in the JSON."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

UPRIGHT_FIRST = 5  # EXIF orientations from here on swap width and height

Size = tuple[int, int]


class Header(NamedTuple):
    """Size of an image as stored, and its EXIF orientation."""

    stored: Size
    orientation: int = 1

    @property
    def upright(self) -> Size:
        """(height, width) after the EXIF rotation."""
        return self.stored[::-1] if self.orientation >= UPRIGHT_FIRST else self.stored


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
