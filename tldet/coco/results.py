"""Records of a COCO results file."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

Number = int | float  # an id written as 7.0 is the id 7


class Detection(msgspec.Struct):
    """One record of a COCO results file."""

    image_id: Number
    category_id: Number
    score: float
    bbox: list[float] | UnsetType = UNSET
    file_name: str | None = None
    category_name: str | None = None


class MaskDetection(Detection):
    """One record of a COCO results file, with its mask."""

    segmentation: Any = None
