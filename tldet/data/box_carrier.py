"""Albumentations' processing of boxes without its clipping and filtering; imported only where a step of it is built."""

from __future__ import annotations

from typing import Any

from albumentations.core import bbox_utils


class BoxCarrier(bbox_utils.BboxProcessor):  # type: ignore[misc]
    """Boxes come out where the step puts them, inside the image or not."""

    def filter(self, data: Any, _shape: Any) -> Any:
        """All of them."""
        return data

    def convert_to_albumentations(self, data: Any, shape: Any) -> Any:
        """Shares of the image's sides; not checked."""
        return bbox_utils.convert_bboxes_to_albumentations(data, self.params.format, shape)

    def convert_from_albumentations(self, data: Any, shape: Any) -> Any:
        """Pixels; not checked."""
        return bbox_utils.convert_bboxes_from_albumentations(data, self.params.format, shape)
