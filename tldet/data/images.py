"""Reading pictures: always (H, W, 3) uint8 RGB, upright as EXIF says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError

Picture = NDArray[np.uint8]
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
END_WITHIN = 4096  # cameras append data after the end marker


def read_image(path: str | Path) -> Picture:
    """The picture as (H, W, 3) uint8 RGB, turned upright.

    JPEG goes through OpenCV, which decodes fastest and turns by EXIF but does not notice a file that breaks off; so
    its end is looked at first. Everything else goes through Pillow, which refuses what is broken. Alpha is dropped
    over white, 16 bits are scaled to 8, of several frames the first is read.

    Raises:
        DataError: the file is missing, broken or no picture.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content:
        raise DataError(f"{path}: is an empty file")
    if content.startswith(JPEG_START):
        if JPEG_END not in content[-END_WITHIN:]:
            raise DataError(f"{path}: is a JPEG that breaks off before its end")
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if decoded is not None and not _is_cmyk(content):
            return cast(Picture, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded))
    return _read_with_pillow(path, content)


def _is_cmyk(content: bytes) -> bool:
    """Whether a JPEG's frame header counts four components (OpenCV's colours are off there)."""
    place = 2
    while place + 9 < len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[place + 9] == 4
        place += 2 + length
    return False


def _read_with_pillow(path: str | Path, content: bytes) -> Picture:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            return _to_rgb(cast(Any, ImageOps.exif_transpose(opened)))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        text = str(error).split("<")[0].strip() or type(error).__name__
        raise DataError(f"{path}: is no readable picture ({text})") from None


def _to_rgb(image: Any) -> Picture:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        scale = 255 / 65535 if image.mode.startswith("I") else 255 / max(float(values.max()), 1e-9)
        grey = (values * scale).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def resize_to(image: Picture, size: tuple[int, int]) -> Picture:
    """Resize to (height, width): by area when shrinking to less than half, else bilinear."""
    shrink = min(image.shape[0] / size[0], image.shape[1] / size[1])
    method = cv2.INTER_AREA if shrink > 2 else cv2.INTER_LINEAR
    return cast(Picture, cv2.resize(image, (size[1], size[0]), interpolation=method))


def fitted_size(size: tuple[int, int], short: int, long: int) -> tuple[int, int]:
    """The size whose short side is ``short``, or whose long side is ``long`` where it would pass it."""
    scale = min(short / min(size), long / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
