"""Size and orientation in the headers of image files other than JPEG: PNG, GIF, BMP, WebP and TIFF."""

from __future__ import annotations

import struct

from .image_types import Size

PNG, BMP, GIF = b"\x89PNG\r\n\x1a\n", b"BM", (b"GIF87a", b"GIF89a")
TIFF = {b"II*\0": "<", b"MM\0*": ">"}  # byte orders
_WIDTH, _HEIGHT, _COLORS, _ORIENTATION, _SAMPLES = 256, 257, 262, 274, 277  # tags
_CMYK, _GRAY = 5, 0  # colors of TIFF, of PNG
_BITFIELDS = 3  # compression of a BMP with masks
_INTEGERS = {3: "H", 4: "I"}  # types of a tag


def is_webp(content: bytes) -> bool:
    """Recognize WebP files."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def size_of(content: bytes) -> Size | None:
    """Return (height, width) as stored, before EXIF rotation; None for other formats and truncated headers."""
    try:
        return _size_of(content)
    except struct.error:
        return None


def _size_of(content: bytes) -> Size | None:
    width = height = 0
    if content.startswith(PNG):
        width, height = struct.unpack_from(">II", content, 16)
    elif content.startswith(GIF):
        width, height = struct.unpack_from("<HH", content, 6)
    elif content.startswith(BMP):
        width, height = struct.unpack_from("<ii", content, 18)
    elif content[:4] in TIFF:
        tags = tiff_tags(content)
        width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    elif is_webp(content):
        width, height = _webp_size(content)
    return (abs(height), abs(width)) if width and height else None


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return (width, height), which have 14 bits each in plain lossy and lossless files, and 24 bits otherwise."""
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1


def unreadable(content: bytes) -> str | None:
    """Return a feature of the file that OpenCV decodes to wrong colors, such as "CMYK colors"; None without one."""
    tags = tiff_tags(content)
    if tags.get(_COLORS) == _CMYK:
        return "CMYK colors"
    if tags.get(_SAMPLES) in (2, 4):
        return "TIFF transparency"
    if content.startswith(PNG) and content[25:26] == bytes([_GRAY]) and _png_chunk(content, b"tRNS"):
        return "a transparent gray value"
    return None


def has_alpha_mask(content: bytes) -> bool:
    """Return True for a BMP file with an alpha channel; in other BMP files, a fourth byte per pixel is unused."""
    try:
        header, compression = struct.unpack_from("<I12xI", content, 14)
        return bool(header >= 56 and compression == _BITFIELDS and struct.unpack_from("<I", content, 66)[0])
    except struct.error:
        return False


def orientation_of(content: bytes) -> int:
    """Return the EXIF orientation of a PNG or WebP file, 1 (upright) to 8; OpenCV rotates TIFF files itself."""
    exif = b""
    if content.startswith(PNG):
        exif = _png_chunk(content, b"eXIf")
    elif is_webp(content):
        exif = _webp_chunk(content, b"EXIF")
    found = tiff_tags(exif.removeprefix(b"Exif\0\0")).get(_ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _png_chunk(content: bytes, kind: bytes) -> bytes:
    """Return the first chunk of a kind; empty if there is none."""
    start = len(PNG)
    while start + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, start)
        if content[start + 4 : start + 8] == kind:
            return content[start + 8 : start + 8 + length]
        start += 12 + length
    return b""


def _webp_chunk(content: bytes, kind: bytes) -> bytes:
    """Return the first chunk of a kind; empty if there is none."""
    start = 12
    while start + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, start + 4)
        if content[start : start + 4] == kind:
            return content[start + 8 : start + 8 + length]
        start += 8 + length + length % 2
    return b""


def tiff_tags(content: bytes) -> dict[int, int]:
    """Return the tags of the first directory of a TIFF file or EXIF data that have a single integer value."""
    order, tags = TIFF.get(content[:4]), dict[int, int]()
    if order is None:
        return tags
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", content, entry)
            if kind in _INTEGERS and values == 1:
                (tags[tag],) = struct.unpack_from(f"{order}{_INTEGERS[kind]}", content, entry + 8)
    except struct.error:  # cut off
        pass
    return tags
