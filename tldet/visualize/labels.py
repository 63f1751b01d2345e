"""Labels on images: text in any script, at positions with little overlap."""

from __future__ import annotations

import importlib.util
import math
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
_Boxes = NDArray[np.float32]
PAD = 2  # pixels around a text
ON_LABEL, ON_BOX, ON_EDGE = 30.0, 1.0, 0.5  # cost of covering labels, boxes, and edges of boxes
PREFERENCE = 0.02  # additional cost of each further candidate position
# The positions: x is one of (left edge, ending at the right edge, beside on the right, on the left),
# y one of (above, below, inside at the top, inside at the bottom, one line higher).
_COLUMNS = [0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 0]
ROWS = [0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3, 4]


@lru_cache(maxsize=1024)
def paint(text: str, size: int, ground: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Draw one line of black or white text on a colored background: (height, width, 3), see :func:`render`."""
    ink = 0 if sum(ground) > 330 else 255
    share = render(text, size)[..., None].astype(np.uint16)
    return np.asarray((share * ink + (255 - share) * np.array(ground, np.uint16)) // 255, np.uint8)


def render(text: str, size: int) -> Mask:
    """Draw one line of text as (height, width) coverage from 0 to 255.

    Args:
        text: text in any script; a character that no installed font has is written in ASCII.
        size: pixels per em, which alone determines the height.
    """
    from PIL import Image, ImageDraw

    ascent, descent = _font(_default_font(), size).getmetrics()
    runs = [("".join(part), _font(path, size)) for path, part in groupby(_readable(text), _font_with)]
    widths = [font.getlength(part) for part, font in runs]
    image = Image.new("L", (max(1, round(sum(widths))) + 2 * PAD, ascent + descent))
    pen, x = ImageDraw.Draw(image), float(PAD)
    for (part, font), width in zip(runs, widths, strict=True):
        pen.text((x, ascent), part, fill=255, font=font, anchor="ls")
        x += width
    return np.asarray(image)


def _readable(text: str) -> str:
    """Replace characters that no font has by ASCII."""
    return "".join(c if _font_with(c) else "" if _invisible(c) else _plain(c) for c in _spaced(text))


def _spaced(text: str) -> str:
    """Replace control characters, line separators and surrogates by spaces."""
    return "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} else c for c in text)


def _invisible(character: str) -> bool:
    """Return True for joiners and variation selectors, which need no glyph."""
    return unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F


def _plain(character: str) -> str:
    near = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode().strip()
    return near or character.encode("ascii", "backslashreplace").decode()


def without_font(texts: Iterable[str]) -> list[str]:
    """Return the texts with a character that no installed font has and that is drawn in ASCII."""
    return [text for text in texts if not all(_font_with(c) or _invisible(c) for c in _spaced(text))]


@cache
def _font_with(character: str) -> str:
    """Return the path of the first font that has a glyph for a character; empty if there is none."""
    if " " <= character <= "~":
        return _default_font()
    if _has_glyph(_default_font(), character):
        return _default_font()
    return next((path for path in _system_fonts() if _has_glyph(path, character)), "")


@cache
def _default_font() -> str:
    """Return the path of DejaVu Sans, which comes with matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf")


@cache
def _system_fonts() -> tuple[str, ...]:
    """List the installed fonts: regular Noto Sans first, then other regular fonts, then bold and italic ones."""
    from matplotlib.font_manager import findSystemFonts

    def rank(path: str) -> tuple[bool, bool, str]:
        name = Path(path).stem.lower()
        styled = any(word in name for word in ("italic", "oblique", "bold", "black", "thin", "lastresort"))
        return styled, "notosans" not in name, path

    return tuple(sorted(findSystemFonts(), key=rank))


def _has_glyph(path: str, character: str) -> bool:
    codes = _charmap(path)
    at = int(np.searchsorted(codes, ord(character)))
    return at < len(codes) and int(codes[at]) == ord(character)


@cache
def _charmap(path: str) -> NDArray[np.int32]:
    """Return the sorted character codes of a font; none if the file cannot be read or scaled (color bitmaps)."""
    from matplotlib.ft2font import FT2Font

    try:
        _font(path, 16)
        return np.array(sorted(FT2Font(path).get_charmap()), np.int32)
    except (OSError, RuntimeError, ValueError):
        return np.zeros(0, np.int32)


@lru_cache(maxsize=64)
def _font(path: str, size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


def place_labels(sizes: Sequence[tuple[int, int]], boxes: _Boxes, shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Choose the upper left corner (x, y) of each box's label.

    Each label gets the candidate position at its box, inside the image, that overlaps least with labels placed before,
    boxes and box edges. Without overlap, the position is above the upper left corner.

    Args:
        sizes: (height, width) of each label, most important first.
        boxes: (N, 4) xyxy pixels.
        shape: (height, width) of the image.
    """
    if not len(sizes):
        return []
    boxes = boxes.round()  # as they are drawn; a label that touches its box does not cover it
    spots = _candidates(np.asarray(sizes, np.float32), boxes, shape)  # (N, C, 4)
    cost = _covering(spots, boxes) + PREFERENCE * np.arange(spots.shape[1], dtype=np.float32)
    taken = np.zeros(shape, np.uint8)  # 1 under the labels placed so far
    corners = []
    rows = zip(sizes, cost.tolist(), cost.argsort(1).tolist(), spots[..., :2].astype(int).tolist(), strict=True)
    for (height, width), costs, order, choices in rows:
        left, top = _cheapest(((costs[i], choices[i]) for i in order), taken, height, width)
        taken[top : top + height, left : left + width] = 1
        corners.append((left, top))
    return corners


def _cheapest(spots: Iterable[tuple[float, list[int]]], taken: Mask, height: int, width: int) -> list[int]:
    """Return the corner of lowest cost; candidates are in order of their cost without other labels."""
    least, best, scale = math.inf, list[int](), ON_LABEL / (height * width)
    for cost, corner in spots:
        if cost >= least:
            break
        left, top = corner
        cost += scale * cv2.countNonZero(taken[top : top + height, left : left + width])
        if cost < least:
            least, best = cost, corner
    return best


def _candidates(sizes: _Boxes, boxes: _Boxes, shape: tuple[int, int]) -> _Boxes:
    """Return candidates (N, C, 4): above, below, inside at top and bottom, beside the box; moved into the image."""
    h, w = sizes.T
    x0, y0, x1, y1 = boxes.T
    x = np.array((x0, x1 - w, x1, x0 - w))[_COLUMNS]  # (C, N)
    y = np.array((y0 - h, y1, y0, y1 - h, y0 - 2 * h))[ROWS]
    x = x.clip(0, np.maximum(shape[1] - w, 0))
    y = y.clip(0, np.maximum(shape[0] - h, 0))
    corners: _Boxes = np.array((x, y, x + w, y + h), np.float32).transpose(2, 1, 0)
    return corners


def _covering(spots: _Boxes, boxes: _Boxes) -> NDArray[np.float32]:
    """Compute the cost (N, C) of covering boxes: covered fraction of each box or of the label, and crossed edges."""
    flat = spots.reshape(-1, 4)
    area = _area(flat)[:, None]
    inside = _overlap(flat, boxes)  # (N * C, N)
    crossed = np.count_nonzero(inside, axis=1) - np.count_nonzero(inside >= area, axis=1)
    inside /= np.minimum(_area(boxes), area)
    cost = ON_BOX * inside.sum(1) + ON_EDGE * crossed
    return np.asarray(cost.reshape(spots.shape[:2]), np.float32)


def _area(boxes: _Boxes) -> _Boxes:
    return np.asarray(np.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 1), np.float32)


def _overlap(spots: _Boxes, boxes: _Boxes) -> _Boxes:
    """Compute the areas (S, B) of intersection."""
    width = np.minimum(spots[:, 2, None], boxes[:, 2])
    width -= np.maximum(spots[:, 0, None], boxes[:, 0])
    height = np.minimum(spots[:, 3, None], boxes[:, 3])
    height -= np.maximum(spots[:, 1, None], boxes[:, 1])
    np.maximum(width, 0, out=width)
    width *= np.maximum(height, 0, out=height)
    return np.asarray(width, np.float32)
