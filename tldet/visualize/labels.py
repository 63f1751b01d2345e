"""Text of labels on images, in any script."""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.runtime.drawing import ink_on

Mask = NDArray[np.uint8]
_PAD = 2  # pixels around a text


@lru_cache(maxsize=1024)
def paint(text: str, size: int, ground: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Draw one line of black or white text on a colored background: (height, width, 3), see :func:`render`."""
    return ink_on(render(text, size), ground)


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
    image = Image.new("L", (max(1, round(sum(widths))) + 2 * _PAD, ascent + descent))
    pen, x = ImageDraw.Draw(image), float(_PAD)
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
