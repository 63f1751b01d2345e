"""Reading pictures: always (H, W, 3) uint8 RGB, upright as EXIF says."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator, Sequence
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
    its end is looked for first. Everything else, a JPEG followed by much else (a film in a phone's photograph) too,
    goes through Pillow, which refuses what is broken. Alpha is dropped over white, 16 bits are scaled to 8, of several
    frames the first is read.

    Raises:
        DataError: the file is missing, broken or no picture.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content:
        raise DataError(f"{path}: is an empty file")
    ends = not content.startswith(JPEG_START) or JPEG_END in content[-END_WITHIN:]
    if content.startswith(JPEG_START) and ends and not _is_cmyk(content):
        with contextlib.suppress(cv2.error):  # such as more pixels than it takes; Pillow says so
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            if decoded is not None:
                return cast(Picture, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded))
    try:
        return _read_with_pillow(path, content)
    except DataError:
        if ends:
            raise
        raise DataError(f"{path}: is a JPEG that breaks off before its end") from None


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
    from PIL import Image

    with _naming(path), Image.open(io.BytesIO(content)) as opened:
        return _upright(opened)


def from_pillow(image: Any) -> Picture:
    """A picture that Pillow opened as (H, W, 3) uint8 RGB, turned upright: what :func:`read_image` gives of its file.

    Raises:
        DataError: its file is broken.
    """
    with _naming(getattr(image, "filename", "") or "the picture"):
        return _upright(image)


@contextlib.contextmanager
def _naming(name: object) -> Iterator[None]:
    """What Pillow raises about a broken picture, or its broken EXIF data, as one line with its name."""
    from PIL import Image

    broken = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, struct.error)
    try:
        yield
    except (*broken, Image.DecompressionBombError) as error:
        text = " ".join(str(error).split("<")[0].split()) or type(error).__name__
        raise DataError(f"{name}: is no readable picture ({text})") from None


def _upright(image: Any) -> Picture:
    from PIL import ImageOps

    image.load()
    return _to_rgb(cast(Any, ImageOps.exif_transpose(image)))


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


def require_pictures(folder: Path, names: Sequence[str], annotations: Path) -> None:
    """Raise :class:`DataError` that names the first pictures of a JSON missing in its folder and counts them."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(f"{folder}: {len(missing)} of {len(names)} pictures of {annotations} missing: {named}")
