"""Reading pictures: always (H, W, 3) uint8 RGB, upright as EXIF says."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.inputs import is_file

Picture = NDArray[np.uint8]
EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".avif", ".heic", ".heif", ".jp2", ".j2k"}
)
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
)  # fmt: skip
HEIF, AVIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), (b"avif", b"avis")
JPEG_START, JPEG_END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
START = 4096  # bytes at the start of a file that show its format
END_WITHIN = 4096  # cameras append data after the end marker
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True)
class Reduced:
    """A picture at 1/``factor`` of its size: image (H, W, 3) uint8 RGB."""

    image: Picture
    factor: int = 1

    @property
    def whole(self) -> tuple[int, int]:
        """(height, width) of the picture itself."""
        return self.image.shape[0] * self.factor, self.image.shape[1] * self.factor


class Frame(NamedTuple):
    """What a JPEG's frame header says: its sides as stored, before it is turned upright, and its components."""

    height: int
    width: int
    components: int


def read_image(path: str | Path) -> Picture:
    """The picture as (H, W, 3) uint8 RGB, turned upright.

    JPEG goes through OpenCV, which decodes fastest and turns by EXIF but does not notice a file that breaks off; so
    its end is looked for first. Everything else, a JPEG followed by much else (a film in a phone's photograph) too,
    goes through Pillow, which refuses what is broken. Alpha is dropped over white, 16 bits are scaled to 8, of several
    frames the first is read.

    Raises:
        DataError: the file is missing, broken or no picture.
    """
    return read_reduced(path, None).image


def read_reduced(path: str | Path, bounds: tuple[int, int] | None) -> Reduced:
    """The picture, of a JPEG that will be scaled down much at 1/2, 1/4 or 1/8 of its size.

    That takes a fraction of the time, since a JPEG's blocks of 8 x 8 pixels are decoded as smaller ones. It is done
    only where the factor divides both sides, so that nothing is shifted, and where what remains is no smaller than
    what the picture will be scaled to.

    Args:
        path: the file.
        bounds: the short and the long side that :func:`fitted_size` will scale it to; None reads it whole.

    Raises:
        DataError: the file is missing, broken or no picture.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content:
        raise DataError(f"{path}: is an empty file")
    jpeg = content.startswith(JPEG_START)
    end = content.rfind(JPEG_END) if jpeg else 0
    if jpeg and end < (scan_start(content) or 0):
        raise DataError(f"{path}: is a JPEG that breaks off before its end")
    frame = frame_of(content) if jpeg and len(content) - end <= END_WITHIN else None
    if frame and frame.components != 4:  # OpenCV's colours are off there
        factor = reduction(frame[:2], *bounds) if bounds else 1
        with contextlib.suppress(cv2.error):  # such as more pixels than it takes; Pillow says so
            decoded = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[factor])
            if decoded is not None:
                return Reduced(cast(Picture, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)), factor)
    return Reduced(_read_with_pillow(path, content))


def is_image(start: bytes) -> bool:
    """Recognize image formats by a file's first bytes, except TIFF (see :func:`is_tiff`)."""
    bmp = start[:2] == b"BM" and start[6:10] == bytes(4) and start[14:15] in b"\x0c\x28\x6c\x7c"
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start.startswith(SIGNATURES) or bmp or webp or bool(_brands(start) & {*HEIF, *AVIF})


def is_tiff(start: bytes) -> bool:
    """Recognize TIFF and camera raw formats by a file's first bytes."""
    return start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))


def is_heif(start: bytes) -> bool:
    """Recognize HEIF (.heic, not AVIF) by a file's first bytes."""
    return bool(_brands(start) & {*HEIF}) and not _brands(start) & {*AVIF}


def _brands(start: bytes) -> set[bytes]:
    """Return the brands in the first box of an ISO media file."""
    if start[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(start[:4], "big"), len(start))
    return {start[8:12], *(start[at : at + 4] for at in range(16, end, 4))}


def heif_readable() -> bool:
    """Return True if HEIF (.heic) can be read, which needs the package pillow-heif."""
    return importlib.util.find_spec("pillow_heif") is not None


def reduction(size: tuple[int, int], short: int, long: int) -> int:
    """The greatest of 8, 4, 2 and 1 that divides (height, width) and leaves at least :func:`fitted_size` of it."""
    height, width = fitted_size(size, short, long)
    for factor in (8, 4, 2):
        whole = size[0] % factor == 0 and size[1] % factor == 0
        if whole and size[0] // factor >= height and size[1] // factor >= width:
            return factor
    return 1


def frame_of(content: bytes) -> Frame | None:
    """Find the frame header of a JPEG, given its first bytes; None if it lies farther back."""
    for marker, place in _segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            sides = content[place + 5 : place + 9]
            return Frame(int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big"), content[place + 9])
    return None


def scan_start(content: bytes) -> int | None:
    """Position of the compressed pixels of a JPEG, given its beginning; None if they are not reached.

    An end marker before it is that of a thumbnail in the metadata.
    """
    return next((place for marker, place in _segments(content) if marker == SCAN), None)


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Marker and position of the segments at the beginning of a JPEG, up to the compressed pixels."""
    place, marker = 2, 0
    while place + 9 < len(content) and content[place] == 0xFF and marker != SCAN:
        marker = content[place + 1]
        yield marker, place
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")


def _read_with_pillow(path: str | Path, content: bytes) -> Picture:
    if is_heif(content[:START]) and not heif_readable():
        raise DataError(f"{path}: is a HEIF image; install the package pillow-heif to read it, or convert it to JPEG")
    with _naming(path), _opened(content) as opened:
        return _upright(opened)


def _opened(content: bytes) -> Any:
    from PIL import Image

    if is_heif(content[:START]):
        return importlib.import_module("pillow_heif").HeifImageFile(io.BytesIO(content))
    return Image.open(io.BytesIO(content))


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
    missing = [name for name in names if not is_file(folder / name)]
    if missing:
        raise missing_images(folder, missing, len(names), annotations)


def missing_images(folder: Path, missing: Sequence[str], total: int, annotations: Path) -> DataError:
    """Create the error for missing images; it counts them and names the first."""
    named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return DataError(f"{folder}: {len(missing)} of {total} images of {annotations} missing: {named}")
