"""Checks of image files before training, by their headers and end markers.

A complete file of the size in the JSON is accepted by its first and last bytes. Only unusual files are decoded, with
the function that reads training images.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tldet.coco.reader import read_coco
from tldet.data.checks.headers import Header, disagreement, read_header
from tldet.data.images import decode_image
from tldet.errors import DataError, OutputError
from tldet.runtime.images import MAX_PIXELS, Limits, read_bytes
from tldet.system.cache import cache_root
from tldet.system.inputs import is_file, real_path
from tldet.system.output import replacing
from tldet.text import counted

log = logging.getLogger(__name__)
_THREADS = 8
_CHUNK = 512
MISSING = "no such file"  # problem of an image
EVERY = 10.0  # seconds between two lines about progress
_CACHE_VERSION = 3


class Fault(NamedTuple):
    """An unusable image: its position, the problem, and the header if only the size is wrong."""

    position: int
    problem: str
    header: Header | None = None


class Checked(NamedTuple):
    """Result of checking an image file: its problem (None if it is usable) and header (None if it cannot be read)."""

    fault: Fault | None
    header: Header | None = None


class Findings(NamedTuple):
    """Unusable images, and the positions of images with several frames, of which the first is used."""

    faults: list[Fault]
    several_frames: list[int]


def find_faults(
    folder: Path,
    names: Sequence[str],
    sizes: NDArray[np.int32],
    annotations: Path,
    positions: Sequence[int],
    max_pixels: int = MAX_PIXELS,
) -> Findings:
    """Find the images that are missing, damaged, have several frames, or whose size differs from the JSON.

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
    unknown = np.flatnonzero((kept.stamps[:, :2] != stamps).any(1) | (stamps[:, 0] < 0) | large).tolist()
    frames = np.where(stamps[:, 0] < 0, 1, kept.stamps[:, 2])
    stated = [tuple(sizes[positions[row]].tolist()) for row in unknown]
    files = [(int(positions[row]), Path(paths[row])) for row in unknown]
    work = [(*file, Limits(max_pixels, size)) for file, size in zip(files, stated, strict=True)]
    checked = list(_checked(work, annotations))
    frames[unknown] = [one.header.frames if one.header else 1 for one in checked]
    faults = [one.fault for one in checked if one.fault is not None]
    if unknown:
        wrong = np.isin(np.asarray(positions), [fault.position for fault in faults])
        kept.save(np.where(wrong[:, None], -1, np.concatenate([stamps, frames[:, None]], 1)))
    several = np.asarray(positions, np.int64)[frames > 1].tolist()
    return Findings(_explained(faults, sizes, annotations), several)


def _stamp(path: str) -> tuple[int, int]:
    """Return size and modification time of a file; -1 for a missing one."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


class _Kept:
    """Cached size, modification time and frames of the files that passed an earlier check; negative for the others.

    The last row of the file has the CRC-32 of the others.
    """

    def __init__(self, folder: Path, names: Sequence[str], sizes: NDArray[np.int32]) -> None:
        text = "\n".join([str(_CACHE_VERSION), str(real_path(folder)), *names]).encode(errors="surrogatepass")
        key = hashlib.sha256(text + sizes.tobytes()).hexdigest()[:32]
        self.path = cache_root() / "images" / f"{key}.npy"
        nothing = np.full((len(names), 3), -2, np.int64)
        try:
            found = np.array(np.lib.format.open_memmap(self.path, mode="r"))
        except (OSError, ValueError, EOFError):
            found = nothing
        fits = (found.shape, found.dtype) == ((len(names) + 1, 3), nothing.dtype)
        intact = fits and np.array_equal(found[-1:], _checksum(found[:-1]))
        self.stamps: NDArray[np.int64] = found[:-1] if intact else nothing

    def save(self, stamps: NDArray[np.int64]) -> None:
        """Save the stamps for the next check; failing to do so only makes that check slower."""
        try:
            with replacing(self.path, sync=False) as file:
                np.save(file, np.concatenate([stamps, _checksum(stamps)]), allow_pickle=False)
        except OutputError as error:
            log.debug("not cached: %s", error)


def _checksum(stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([[zlib.crc32(stamps.tobytes()), 0, 0]], np.int64)


def _checked(work: Sequence[tuple[int, Path, Limits]], annotations: Path) -> Iterator[Checked]:
    """Check files in parallel; log progress if it takes long."""
    started = reported = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = [work[start : start + _CHUNK] for start in range(0, len(work), _CHUNK)]
        for number, found in enumerate(pool.map(lambda chunk: [check_file(*one) for one in chunk], chunks)):
            yield from found
            now = time.monotonic()
            if now - reported > EVERY:
                reported, done = now, min((number + 1) * _CHUNK, len(work))
                rate = done / (now - started)
                text = "%s: checked %d of %s (%.0f/s, %.0f s left)"
                log.info(text, annotations, done, counted(len(work), "image file"), rate, (len(work) - done) / rate)


def check_file(position: int, path: Path, limits: Limits) -> Checked:
    """Check one image file against its size in the JSON and the pixel limit."""
    if not is_file(path):
        return Checked(Fault(position, MISSING))
    try:
        header = read_header(path)
        if header is None:  # unusual file: decode it
            image = decode_image(read_bytes(path), path, None, limits)
            header = Header(image.whole, frames=image.frames)
        if header.upright == limits.stated:
            limits.check(path, *header.stored)
    except DataError as error:
        return Checked(Fault(position, str(error).removeprefix(f"{path}: ")))
    return Checked(None if header.upright == limits.stated else Fault(position, "", header), header)


def _explained(faults: Sequence[Fault], sizes: NDArray[np.int32], annotations: Path) -> list[Fault]:
    """Describe size mismatches: file size, JSON size, and which of the two the boxes fit."""
    if all(fault.header is None for fault in faults):
        return list(faults)
    objects = read_coco(annotations).objects
    found = []
    for fault in faults:
        if fault.header is not None:
            boxes = objects.boxes[objects.positions == fault.position]
            stated = int(sizes[fault.position][0]), int(sizes[fault.position][1])
            fault = fault._replace(problem=disagreement(fault.header, stated, boxes))
        found.append(fault)
    return found
