"""Checks of image files before training, by their headers and end markers.

A complete file of the size in the JSON is accepted by its first and last bytes. Only unusual files are decoded, with
the function that reads training images.
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

from tldet.coco.reader import read_coco
from tldet.data.image_size import JPEG_END, JPEG_START, MAX_PIXELS, Header, Limits, disagreement, frame_of, scan_start
from tldet.data.images import END_WITHIN, read_image
from tldet.errors import DataError, OutputError
from tldet.system.cache import cache_root
from tldet.system.inputs import is_file, real_path
from tldet.system.output import replacing

log = logging.getLogger(__name__)
HEAD, MOST = 8192, 1 << 18  # bytes read at the start of a file; further bytes for a JPEG with long metadata
ORIENTATION = 0x0112  # EXIF tag
OFFSETS, COUNTS = (273, 324), (279, 325)  # TIFF tags: offsets and byte counts of strips and tiles
_THREADS = 8
_CHUNK = 512
_LISTED = 500  # images logged at most
MISSING = "no such file"  # problem of an image
EVERY = 10.0  # seconds between two lines about progress
_CACHE_VERSION = 1


class Fault(NamedTuple):
    """An unusable image: its position, the problem, and its header if only the size is wrong."""

    position: int
    problem: str
    header: Header | None = None


def find_faults(
    folder: Path,
    names: Sequence[str],
    sizes: NDArray[np.int32],
    annotations: Path,
    positions: Sequence[int],
    max_pixels: int = MAX_PIXELS,
) -> list[Fault]:
    """Find the images that are missing, unreadable, truncated, or of another size than in the JSON.

    Files that passed an earlier check and have not changed since are not opened again.

    Args:
        folder: the image folder.
        names: (I) file names on disk.
        sizes: (I, 2) (height, width) in the JSON.
        annotations: the JSON.
        positions: indices of the images to check.
        max_pixels: largest number of pixels of an image.
    """
    paths = [os.path.join(folder, names[i]) for i in positions]  # noqa: PTH118  (several times as fast as Path)
    stamps = np.array([_stamp(path) for path in paths], np.int64).reshape(-1, 2)
    kept = _Kept(folder, [names[i] for i in positions], sizes[list(positions)])
    large = sizes[list(positions)].astype(np.int64).prod(1) > max_pixels  # the limit may have been another one
    unknown = np.flatnonzero((kept.stamps != stamps).any(1) | (stamps[:, 0] < 0) | large).tolist()
    stated = [tuple(sizes[positions[row]].tolist()) for row in unknown]
    files = [(int(positions[row]), Path(paths[row])) for row in unknown]
    work = [(*file, Limits(max_pixels, size)) for file, size in zip(files, stated, strict=True)]
    faults = [fault for fault in _checked(work, annotations) if fault is not None]
    if unknown:
        wrong = np.isin(np.asarray(positions), [fault.position for fault in faults])
        kept.save(np.where(wrong[:, None], -1, stamps))
    return _explained(faults, sizes, annotations)


def log_all(lines: Sequence[str]) -> None:
    """Log one line per image, up to ``LISTED`` lines."""
    for line in lines[:_LISTED]:
        log.warning("%s", line)
    if len(lines) > _LISTED:
        log.warning("... and %d more", len(lines) - _LISTED)


def _stamp(path: str) -> tuple[int, int]:
    """Return size and modification time of a file; -1 for a missing one."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


class _Kept:
    """Cached size and modification time of the files that passed an earlier check; negative for the others."""

    def __init__(self, folder: Path, names: Sequence[str], sizes: NDArray[np.int32]) -> None:
        text = "\n".join([str(_CACHE_VERSION), str(real_path(folder)), *names]).encode(errors="surrogatepass")
        key = hashlib.sha256(text + sizes.tobytes()).hexdigest()[:32]
        self.path = cache_root() / "images" / f"{key}.npy"
        nothing = np.full((len(names), 2), -2, np.int64)
        try:
            found = np.array(np.lib.format.open_memmap(self.path, mode="r"))
        except (OSError, ValueError, EOFError):
            found = nothing
        fits = (found.shape, found.dtype) == (nothing.shape, nothing.dtype)
        self.stamps: NDArray[np.int64] = found if fits else nothing

    def save(self, stamps: NDArray[np.int64]) -> None:
        """Save the stamps for the next check; if that fails, the next check only takes longer."""
        try:
            with replacing(self.path, sync=False) as file:
                np.save(file, stamps, allow_pickle=False)
        except OutputError as error:
            log.debug("not cached: %s", error)


def _checked(work: Sequence[tuple[int, Path, Limits]], annotations: Path) -> Iterator[Fault | None]:
    """Check files in parallel; log progress if it takes long."""
    started = said = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = [work[start : start + _CHUNK] for start in range(0, len(work), _CHUNK)]
        for number, found in enumerate(pool.map(lambda chunk: [check_file(*one) for one in chunk], chunks)):
            yield from found
            now = time.monotonic()
            if now - said > EVERY:
                said, done = now, min((number + 1) * _CHUNK, len(work))
                rate = done / (now - started)
                text = "%s: checked %d of %d image files (%.0f/s, %.0f s left)"
                log.info(text, annotations, done, len(work), rate, (len(work) - done) / rate)


def check_file(position: int, path: Path, limits: Limits) -> Fault | None:
    """Check one image file against its stated size and the limit of pixels; None if the file is valid."""
    if not is_file(path):
        return Fault(position, MISSING)
    try:
        header = read_header(path)
        if header is None:  # unusual file: decode it
            height, width = read_image(path, limits).shape[:2]
            header = Header((height, width))
        if header.upright == limits.stated:
            limits.check(path, *header.stored)
    except DataError as error:
        return Fault(position, str(error).removeprefix(f"{path}: "))
    return None if header.upright == limits.stated else Fault(position, "", header)


def read_header(path: Path) -> Header | None:
    """Read size and orientation of a complete image; None if its first and last bytes are not enough to decide.

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
            width, height = image.size
    except Exception:  # decoding the file reports the problem
        return None
    turned = orientation != 1  # Pillow versions differ in whether a TIFF's size includes its rotation
    return Header((height, width)) if complete and not turned else None


def _tiff_end(image: object) -> float:
    """Return the end of the last strip or tile of a TIFF; infinity if unknown."""
    tags = getattr(image, "tag_v2", {})
    for offsets, counts in zip(OFFSETS, COUNTS, strict=True):
        if offsets in tags and counts in tags:
            return float(max(a + b for a, b in zip(tags[offsets], tags[counts], strict=True)))
    return float("inf")


def _explained(faults: Sequence[Fault], sizes: NDArray[np.int32], annotations: Path) -> list[Fault]:
    """Describe size mismatches: file size, JSON size, and which of the two the boxes fit."""
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
