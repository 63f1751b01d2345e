"""Box processing of albumentations without clipping and filtering; imported only when a transform is built."""

from __future__ import annotations

from typing import Any

from albumentations.core import bbox_utils


class BoxCarrier(bbox_utils.BboxProcessor):  # type: ignore[misc]
    """Box processor that returns the transformed boxes unchanged, inside the image or not."""

    def filter(self, boxes: Any, _shape: Any) -> Any:
        """Keep all boxes."""
        return boxes

    def check(self, _boxes: Any, _shape: Any) -> None:
        """Accept boxes outside the image."""
