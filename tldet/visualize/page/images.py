"""Images and outlines inside a page."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

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


def mask_outline(mask: NDArray[np.uint8], tolerance: float = 0.0) -> str:
    """Return the outlines of a mask and its holes as the path of an SVG element; empty for a mask without pixels.

    Args:
        mask: (H, W), 0 or 1.
        tolerance: pixels by which the outline may differ from the mask; 0 for none.
    """
    outlines, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tolerance:
        outlines = [cv2.approxPolyDP(one, tolerance, True) for one in outlines]
    return "".join("M" + "L".join(f"{x} {y}" for x, y in one[:, 0].tolist()) + "Z" for one in outlines)
