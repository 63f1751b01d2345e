"""Albumentations' processing of boxes without its clipping and filtering; imported only when a step is built."""

from __future__ import annotations

from typing import Any

from albumentations.core import bbox_utils


class BoxCarrier(bbox_utils.BboxProcessor):  # type: ignore[misc]
    """Boxes come out where the step puts them, inside the image or not."""

    def filter(self, boxes: Any, _shape: Any) -> Any:
        """Keep all of them."""
        return boxes

    def check(self, _boxes: Any, _shape: Any) -> None:
        """Accept boxes outside the image."""
