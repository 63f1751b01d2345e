"""Extensions of image and video files, and recognition of images by their first bytes."""

from __future__ import annotations

import importlib.util

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
    | {".avif", ".heic", ".heif", ".jp2", ".j2k"}
)
VIDEO_EXTENSIONS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})
SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
)  # fmt: skip
HEIF, AVIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), (b"avif", b"avis")
START = 4096  # bytes at the start of a file that show its format


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
