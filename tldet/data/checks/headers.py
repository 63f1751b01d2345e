"""Image size and EXIF orientation from the first and last bytes of a file, and size mismatches with the JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tldet.data.pillow import frames_of
from tldet.errors import DataError
from tldet.runtime.images import END_WITHIN, JPEG_END, JPEG_START, frame_of, scan_start
from tldet.structures.image import Size

HEAD, _MOST = 8192, 1 << 18  # bytes read at the start of a file; further bytes for a JPEG with long metadata
ORIENTATION = 0x0112  # EXIF tag
UPRIGHT_FIRST = 5  # EXIF orientations from here on swap width and height
TIFF_OFFSETS, TIFF_COUNTS = (273, 324), (279, 325)  # TIFF tags: offsets and byte counts of strips and tiles


class Header(NamedTuple):
    """Size of an image as stored, its EXIF orientation, and the number of its frames."""

    stored: Size
    orientation: int = 1
    frames: int = 1

    @property
    def upright(self) -> Size:
        """(height, width) after the EXIF rotation."""
        return self.stored[::-1] if self.orientation >= UPRIGHT_FIRST else self.stored


def read_header(path: Path) -> Header | None:
    """Read size and orientation of a complete image; None if its first and last bytes are not enough to decide.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if head.startswith(JPEG_START) and frame_of(head) is None:
                head += file.read(_MOST)  # long metadata, such as a preview image
            size = file.seek(0, os.SEEK_END)
            before = file.seek(max(0, size - END_WITHIN))
            tail = file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not head:
        raise DataError(f"{path}: is an empty file")
    if head.startswith(JPEG_START):
        start, end = scan_start(head), tail.rfind(JPEG_END)
        return _jpeg(head) if start is not None and end >= 0 and before + end > start else None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in tail and b"eXIf" not in head + tail:
        return Header(
            (int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")), frames=_png_frames(head)
        )
    return _other(path, head, tail, size)


def _png_frames(head: bytes) -> int:
    """Return the number of frames of an animated PNG, 1 for others; its chunk ``acTL`` precedes the pixels."""
    chunk = head.partition(b"IDAT")[0].partition(b"acTL")[2]
    return max(1, int.from_bytes(chunk[:4], "big"))


def _jpeg(head: bytes) -> Header | None:
    frame = frame_of(head)
    if frame is None or not frame.height:
        return None
    start = head.find(b"Exif\0\0")
    if start < 0:
        return Header((frame.height, frame.width))
    if head[start - 4 : start - 2] != b"\xff\xe1":
        return None
    orientation = _orientation(head[start : start - 2 + int.from_bytes(head[start - 2 : start], "big")])
    return None if orientation is None else Header((frame.height, frame.width), orientation)


def _orientation(exif: bytes) -> int | None:
    """EXIF orientation 1 to 8; None if the data are damaged."""
    from PIL import Image

    values = Image.Exif()
    try:
        values.load(exif)
        found = values.get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises many kinds of errors in Pillow
        return None
    return found if isinstance(found, int) and 1 <= found <= 8 else None


def _other(path: Path, head: bytes, tail: bytes, size: int) -> Header | None:
    """Return the header of a complete GIF, BMP, WebP or TIFF; None if decoding must decide."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            complete = {
                "GIF": tail.rstrip(b"\0").endswith(b";"),
                "BMP": 0 < int.from_bytes(head[2:6], "little") <= size,
                "WEBP": int.from_bytes(head[4:8], "little") + 8 <= size,
                "TIFF": _tiff_end(image) <= size,
            }.get(str(image.format), False)
            orientation = image.getexif().get(ORIENTATION, 1)
            (width, height), frames = image.size, frames_of(image)
    except Exception:  # decoding the file reports the problem
        return None
    rotated = orientation != 1  # Pillow versions differ in whether a TIFF's size includes its rotation
    return Header((height, width), frames=frames) if complete and not rotated else None


def _tiff_end(image: object) -> float:
    """Return the end of the last strip or tile of a TIFF; infinity if unknown."""
    tags = getattr(image, "tag_v2", {})
    for offsets, counts in zip(TIFF_OFFSETS, TIFF_COUNTS, strict=True):
        if offsets in tags and counts in tags:
            return float(max(a + b for a, b in zip(tags[offsets], tags[counts], strict=True)))
    return float("inf")


def disagreement(header: Header, stated: Size, boxes: NDArray[np.float64]) -> str:
    """Describe a size mismatch of file and JSON, and which of the two sizes the boxes (N, 4) xywh fit."""
    upright = header.upright
    rotated = f" (EXIF orientation {header.orientation})" if header.orientation > 1 else ""
    same = " (the size before the EXIF rotation)" if stated == header.stored else ""
    what = f"sizes differ: file {_text(upright)}{rotated}, JSON {_text(stated)}{same}; "
    fits_file, fits_json = boxes_fit(boxes, upright), boxes_fit(boxes, stated)
    if not len(boxes):
        return what + "the image has no boxes: correct width and height in the JSON"
    if fits_file and not fits_json:
        return what + "the boxes fit only the file: correct width and height in the JSON"
    if fits_json and not fits_file:
        cause = "annotated before the rotation: remove the EXIF orientation" if same else "resized later: restore it"
        return what + f"the boxes fit only the JSON, so the image was {cause}"
    if fits_json:
        return what + "the boxes fit both: check which size is right, then correct the JSON or replace the file"
    return what + "the boxes fit neither: correct the annotations"


def boxes_fit(boxes: NDArray[np.float64], size: Size) -> bool:
    """Return True if boxes (N, 4) xywh lie in an image of ``size`` (height, width), up to a pixel."""
    ends = boxes[:, :2] + boxes[:, 2:]
    return bool((boxes[:, :2] >= -1).all() and (ends <= np.array([size[1], size[0]]) + 1).all())


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
