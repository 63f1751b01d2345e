"""Drawing of boxes, masks and labels on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .image_types import ImageArray
from .label_placement import place_labels
from .masks import MaskWindow

Color = tuple[int, int, int]
# Okabe and Ito 2008, distinguishable for color-blind people; further classes get lighter and darker shades.
PALETTE = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
TEXT_SIZE = 1 / 36  # em, relative to the short side of the image


@cache
def color_of(label: int) -> Color:
    """Return the RGB color of a class."""
    base, round_ = PALETTE[label % len(PALETTE)], label // len(PALETTE)
    factor = (1.0, 0.65, 1.3, 0.45)[round_ % 4]
    red, green, blue = (int(min(255, c * factor)) for c in base)
    return red, green, blue


def draw_objects(
    canvas: ImageArray,
    boxes: NDArray[np.float32],
    labels: Sequence[int],
    names: Sequence[str],
    scores: Sequence[float] | None,
    windows: Iterable[MaskWindow] | None,
    paint: Callable[[str, int, Color], ImageArray],
) -> None:
    """Draw objects on an image, the first one on top; labels avoid each other.

    Args:
        canvas: (H, W, 3) uint8 RGB; changed in place.
        boxes: (N, 4) xyxy in pixels.
        labels: label of each object, which determines its color.
        names: class name of each object.
        scores: scores to write after the names; None: names only.
        windows: masks in reverse order of ``boxes``; None without masks.
        paint: function of a text, a size in pixels per em and a background color that returns the drawn text,
            (height, width, 3) uint8.
    """
    colors = [color_of(label) for label in labels]
    for (top, left, inside), color in zip(windows or [], reversed(colors), strict=windows is not None):
        part = canvas[top : top + inside.shape[0], left : left + inside.shape[1]]
        part[inside] = (0.55 * part[inside] + 0.45 * np.array(color)).astype(np.uint8)
    width = max(1, round(min(canvas.shape[:2]) / 300))
    for (x0, y0, x1, y1), color in zip(boxes[::-1].round().astype(int).tolist(), reversed(colors), strict=True):
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, width, cv2.LINE_AA)
    size = max(11, round(min(canvas.shape[:2]) * TEXT_SIZE))
    texts = [[name] for name in names]
    if scores is not None:
        texts = [[name, f"{score:.2f}"] for name, score in zip(names, scores, strict=True)]
    painted = [[paint(text, size, ground) for text in row] for row, ground in zip(texts, colors, strict=True)]
    _write_labels(canvas, boxes, painted)


def _write_labels(canvas: ImageArray, boxes: NDArray[np.float32], painted: Sequence[Sequence[ImageArray]]) -> None:
    """Copy the drawn texts into the image; positions are chosen in the order of the objects."""
    sizes = [(parts[0].shape[0], sum(part.shape[1] for part in parts)) for parts in painted]
    corners = place_labels(sizes, boxes, (canvas.shape[0], canvas.shape[1]))
    for parts, (x, y) in reversed(list(zip(painted, corners, strict=True))):
        for part in parts:
            spot = canvas[y : y + part.shape[0], x : x + part.shape[1]]
            spot[...] = part[: spot.shape[0], : spot.shape[1]]
            x += part.shape[1]


def ink_on(coverage: NDArray[np.uint8], ground: Color) -> ImageArray:
    """Draw text in black or white, whichever is more readable, on a colored background: (height, width, 3).

    Args:
        coverage: (height, width) opacity of the text, 0 to 255.
        ground: RGB color of the background.
    """
    ink = 0 if sum(ground) > 330 else 255
    share = coverage[..., None].astype(np.uint16)
    return np.asarray((share * ink + (255 - share) * np.array(ground, np.uint16)) // 255, np.uint8)
