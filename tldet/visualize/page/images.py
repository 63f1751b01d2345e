"""Images and outlines inside a page."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import cv2

from tldet.structures.image import ImageArray


def jpeg_url(image: ImageArray, quality: int) -> str:
    """Return an RGB image (H, W, 3) as a JPEG data URL.

    Args:
        image: the image.
        quality: quality of the JPEG, 0 to 100.
    """
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(image, quality)).decode()}"


def jpeg(image: ImageArray, quality: int) -> bytes:
    """Return an RGB image (H, W, 3) as JPEG of a quality of 0 to 100."""
    content: bytes = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return content


def svg_path(polygons: Iterable[Iterable[Sequence[int]]]) -> str:
    """Return closed polygons of (x, y) points as the path of an SVG element."""
    return "".join("M" + "L".join(f"{x} {y}" for x, y in one) + "Z" for one in polygons)
