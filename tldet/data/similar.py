"""Identical and nearly identical images: resized, recompressed and mirrored copies.

The perceptual hash of an image is a gray thumbnail of 8 x 8 pixels, minus its mean and scaled to unit length, so that
the dot product of two hashes is the correlation of the thumbnails. Each hash is compared with all others and with their
three mirror images. The thumbnails of 32 x 32 pixels of a candidate pair must also correlate, both as a whole and after
a blurred copy is subtracted (the details): images of the same kind, such as microscope images with the same shading,
differ in the details.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.data.images import decode_image
from tldet.data.tracking import Track
from tldet.errors import DataError
from tldet.runtime.images import JPEG_START, REDUCED, frame_of, read_bytes

_Floats = NDArray[np.float32]
Mirror = Literal["", "mirrored", "upside down", "turned by 180 degrees"]
_MIRRORS: tuple[tuple[Mirror, int, int], ...] = (
    ("", 1, 1),
    ("mirrored", 1, -1),
    ("upside down", -1, 1),
    ("turned by 180 degrees", -1, -1),
)
SIDE, HASH = 32, 8  # pixels of thumbnail and hash
_CANDIDATE, _WHOLE, _DETAILS = 0.94, 0.9, 0.75  # least correlation of hashes, of thumbnails, and of their details
_FLAT = 1.5  # images with a lower standard deviation of gray values are compared by their bytes only
_BLOCK = 2048  # images compared at a time
_THREADS, _CHUNK = 8, 32


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails of images.

    Attributes:
        gray: (I, 32, 32) uint8.
        usable: (I,) bool, False for an image that cannot be read.
        digests: (I,) SHA-256 of each file; empty for an image that cannot be read.
    """

    gray: NDArray[np.uint8]
    usable: NDArray[np.bool_]
    digests: Sequence[bytes]


@dataclass(frozen=True)
class Pair:
    """Two identical or nearly identical images.

    Attributes:
        first: position of the first image.
        second: position of the second image, larger than ``first``.
        correlation: correlation of the thumbnails; 1 for identical files.
        mirror: "mirrored", "upside down", or "turned by 180 degrees" for the second image; empty if it is neither.
        identical: True if the files have the same bytes.
    """

    first: int
    second: int
    correlation: float
    mirror: Mirror = ""
    identical: bool = False


def read_thumbnails(paths: Sequence[Path], track: Track = iter) -> Thumbnails:
    """Read the thumbnails of image files; JPEG files are decoded at a fraction of their size.

    Args:
        paths: (I) files.
        track: wraps their positions, to show progress.
    """
    gray, digests = np.zeros((len(paths), SIDE, SIDE), np.uint8), [b""] * len(paths)
    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    progress = iter(track(range(len(paths))))
    with ThreadPoolExecutor(_THREADS) as pool:
        for chunk, found in zip(
            chunks, pool.map(lambda rows: [_read(paths[row]) for row in rows], chunks), strict=True
        ):
            for row, one in zip(chunk, found, strict=True):
                next(progress, None)
                if one is not None:
                    gray[row], digests[row] = one
    return Thumbnails(gray, np.array([bool(one) for one in digests], np.bool_), digests)


def _read(path: Path) -> tuple[NDArray[np.uint8], bytes] | None:
    try:
        content = read_bytes(path)
        return thumbnail(content, path), hashlib.sha256(content).digest()
    except DataError:  # the check of image files reports it
        return None


def thumbnail(content: bytes, name: object) -> NDArray[np.uint8]:
    """Return the gray thumbnail (32, 32) of an encoded image, upright.

    Raises:
        DataError: the image cannot be decoded.
    """
    frame = frame_of(content) if content.startswith(JPEG_START) else None
    image = None
    if frame is not None and frame.components != 4:
        factor = next((n for n in (8, 4, 2) if min(frame[:2]) >= n * 2 * SIDE), 1)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), REDUCED[factor])
    pixels = decode_image(content, name).image[..., ::-1] if image is None else image
    small = cv2.resize(np.ascontiguousarray(pixels), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def find_pairs(found: Thumbnails, track: Track = iter) -> list[Pair]:
    """Find all pairs of identical or nearly identical images.

    Args:
        found: the thumbnails.
        track: wraps the blocks, to show progress.
    """
    pairs = {(one.first, one.second): one for one in _identical(found.digests)}
    deviation = found.gray.reshape(len(found.gray), -1).std(1) if len(found.gray) else np.zeros(0)
    rows = np.flatnonzero(found.usable & (deviation >= _FLAT))
    for first, second, mirror in _candidates(found.gray[rows], track):
        one, two = int(rows[first]), int(rows[second])
        if (one, two) in pairs:
            continue
        name, down, right = _MIRRORS[mirror]
        correlation = compare_thumbnails(found.gray[one], found.gray[two][::down, ::right])
        if correlation is not None:
            pairs[one, two] = Pair(one, two, correlation, name)
    return [pairs[key] for key in sorted(pairs)]


def _identical(digests: Sequence[bytes]) -> Iterator[Pair]:
    firsts: dict[bytes, int] = {}
    for row, digest in enumerate(digests):
        if digest and (first := firsts.setdefault(digest, row)) != row:
            yield Pair(first, row, 1.0, identical=True)


def hashes(gray: NDArray[np.uint8]) -> _Floats:
    """Return (I, 64) the hashes of thumbnails (I, 32, 32): 8 x 8 means, centered and scaled to length 1."""
    cell = SIDE // HASH
    means = gray.reshape(-1, HASH, cell, HASH, cell).mean((2, 4), dtype=np.float32).reshape(-1, HASH * HASH)
    centered = means - means.mean(1, keepdims=True)
    return np.asarray(centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-6), np.float32)


def _candidates(gray: NDArray[np.uint8], track: Track) -> Iterator[tuple[int, int, int]]:
    """Yield pairs of images whose hashes correlate, and the number of the mirror image of the second."""
    if len(gray) < 2:
        return
    found = hashes(gray)
    grid = found.reshape(-1, HASH, HASH)
    mirrored = [grid[:, ::down, ::right].reshape(len(found), -1) for _, down, right in _MIRRORS]
    for start in track(range(0, len(found), _BLOCK)):
        block = found[start : start + _BLOCK]
        for number, others in enumerate(mirrored):
            for other in range(start, len(found), _BLOCK):
                close = block @ others[other : other + _BLOCK].T > _CANDIDATE
                if close.any():
                    ones, twos = np.nonzero(close)
                    ordered = ones + start < twos + other
                    both = zip((ones[ordered] + start).tolist(), (twos[ordered] + other).tolist(), strict=True)
                    yield from ((one, two, number) for one, two in both)


def compare_thumbnails(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float | None:
    """Return the correlation of two thumbnails of the same image, None for different images.

    Details are the difference to a blurred copy.
    """
    first, second = one.astype(np.float32), np.ascontiguousarray(two).astype(np.float32)
    whole = _correlation(first, second)
    if whole < _WHOLE or _correlation(_details(first), _details(second)) < _DETAILS:
        return None
    return whole


def _details(gray: _Floats) -> _Floats:
    return gray - np.asarray(cv2.blur(gray, (9, 9)), np.float32)


def _correlation(one: _Floats, two: _Floats) -> float:
    first, second = one - one.mean(), two - two.mean()
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / norm if norm > 0 else 0.0
