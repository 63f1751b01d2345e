"""Checks of image files before training: their headers and end markers only, nothing is decoded.

A file that is complete and has the size stated in the JSON is accepted by its first and last bytes. Only what looks
unusual is read like a training image, so that both agree on what is readable.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tldet.cache import cache_root
from tldet.coco.reader import read_coco
from tldet.data.image_size import Header, Size, disagreement
from tldet.data.images import END_WITHIN, JPEG_END, JPEG_START, frame_of, read_image, scan_start
from tldet.errors import DataError

log = logging.getLogger(__name__)
HEAD, MOST = 8192, 1 << 18  # bytes read at the beginning of a file, and more of a JPEG if that is all metadata
ORIENTATION = 0x0112  # EXIF tag
OFFSETS, COUNTS = (273, 324), (279, 325)  # TIFF tags of the places and lengths of strips and tiles
THREADS = 8
CHUNK = 512
LISTED = 500  # images
MISSING = "no such file"  # problem of an image
EVERY = 10.0  # seconds between two lines about progress
CACHE_VERSION = 1


class Fault(NamedTuple):
    """One image that cannot be used: its position, the reason, and its header if only its size is wrong."""

    position: int
    problem: str
    header: Header | None = None


def find_faults(
    folder: Path, names: Sequence[str], sizes: NDArray[np.int32], annotations: Path, positions: Sequence[int]
) -> list[Fault]:
    """Find the images that are missing, unreadable, cut off, or of another size than the JSON states.

    Files that were found in order before and have not changed are not opened again.

    Args:
        folder: the image folder.
        names: (I) file names on disk.
        sizes: (I, 2) stated (height, width).
        annotations: the JSON.
        positions: images to check.
    """
    paths = [os.path.join(folder, names[i]) for i in positions]  # noqa: PTH118  (several times as fast as Path)
    stamps = np.array([_stamp(path) for path in paths], np.int64).reshape(-1, 2)
    kept = _Kept(folder, [names[i] for i in positions], sizes[list(positions)])
    unknown = np.flatnonzero((kept.stamps != stamps).any(1) | (stamps[:, 0] < 0)).tolist()
    stated = [tuple(sizes[positions[row]].tolist()) for row in unknown]
    work = [(int(positions[row]), Path(paths[row]), size) for row, size in zip(unknown, stated, strict=True)]
    faults = [fault for fault in _checked(work, annotations) if fault is not None]
    if unknown:
        wrong = np.isin(np.asarray(positions), [fault.position for fault in faults])
        kept.save(np.where(wrong[:, None], -1, stamps))
    return _explained(faults, sizes, annotations)


def log_all(lines: Sequence[str]) -> None:
    """Log one line for each image, up to a number that can be read."""
    for line in lines[:LISTED]:
        log.warning("%s", line)
    if len(lines) > LISTED:
        log.warning("... and %d more", len(lines) - LISTED)


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of change of a file; -1 if it is missing."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


class _Kept:
    """Size and time of change of the files that were in order at an earlier check; -1 for others."""

    def __init__(self, folder: Path, names: Sequence[str], sizes: NDArray[np.int32]) -> None:
        text = "\n".join([str(CACHE_VERSION), str(folder.resolve()), *names]).encode(errors="surrogatepass")
        key = hashlib.sha256(text + sizes.tobytes()).hexdigest()[:32]
        self.path = cache_root() / "images" / f"{key}.npy"
        nothing = np.full((len(names), 2), -2, np.int64)
        try:
            found = np.load(self.path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            found = nothing
        self.stamps: NDArray[np.int64] = found if found.shape == nothing.shape else nothing

    def save(self, stamps: NDArray[np.int64]) -> None:
        """Keep the stamps for the next check; a cache that cannot be written costs time only."""
        partial = self.path.with_name(f"{self.path.stem}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, stamps, allow_pickle=False)
            partial.replace(self.path)
        except OSError as error:
            log.debug("%s: not written: %s", self.path, error)


def _checked(work: Sequence[tuple[int, Path, Size]], annotations: Path) -> Iterator[Fault | None]:
    """Check files in parallel; log progress where it takes long."""
    started = said = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
        for number, found in enumerate(pool.map(lambda chunk: [check_file(*one) for one in chunk], chunks)):
            yield from found
            now = time.monotonic()
            if now - said > EVERY:
                said, done = now, min((number + 1) * CHUNK, len(work))
                rate = done / (now - started)
                text = "%s: checked %d of %d image files (%.0f/s, %.0f s left)"
                log.info(text, annotations, done, len(work), rate, (len(work) - done) / rate)


def check_file(position: int, path: Path, stated: Size) -> Fault | None:
    """Check one image file against its stated (height, width); None if it is in order."""
    if not path.is_file():
        return Fault(position, MISSING)
    try:
        header = read_header(path)
        if header is None:  # unusual: only reading it tells
            height, width = read_image(path).shape[:2]
            header = Header((height, width))
    except DataError as error:
        return Fault(position, str(error).removeprefix(f"{path}: "))
    return None if header.upright == stated else Fault(position, "", header)


def read_header(path: Path) -> Header | None:
    """Read the size and orientation of an image that is complete; None if its first and last bytes cannot tell.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            if head.startswith(JPEG_START) and frame_of(head) is None:
                head += file.read(MOST)  # long metadata, such as a preview image
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
        return Header((int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")))
    return _other(path, head, tail, size)


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
    except Exception:  # Pillow raises whatever its parser stumbles over
        return None
    return found if isinstance(found, int) and 1 <= found <= 8 else None


def _other(path: Path, head: bytes, tail: bytes, size: int) -> Header | None:
    """Header of a GIF, BMP, WebP or TIFF that is complete."""
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
            width, height = image.size
    except Exception:  # reading it whole names what is wrong
        return None
    turned = orientation != 1  # Pillow's size of a turned TIFF is that before or after, depending on its version
    return Header((height, width)) if complete and not turned else None


def _tiff_end(image: object) -> float:
    """End of the last strip or tile of a TIFF; infinity where it cannot be told."""
    tags = getattr(image, "tag_v2", {})
    for offsets, counts in zip(OFFSETS, COUNTS, strict=True):
        if offsets in tags and counts in tags:
            return float(max(a + b for a, b in zip(tags[offsets], tags[counts], strict=True)))
    return float("inf")


def _explained(faults: Sequence[Fault], sizes: NDArray[np.int32], annotations: Path) -> list[Fault]:
    """Add to images of another size what the JSON says and which of the two the boxes fit."""
    if all(fault.header is None for fault in faults):
        return list(faults)
    objects = read_coco(annotations).objects
    found = []
    for fault in faults:
        if fault.header is not None:
            boxes = objects.boxes[objects.places == fault.position]
            stated = int(sizes[fault.position][0]), int(sizes[fault.position][1])
            fault = fault._replace(problem=disagreement(fault.header, stated, boxes))
        found.append(fault)
    return found
