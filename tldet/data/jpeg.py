"""JPEG headers: size and position of the compressed data, without decoding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

JPEG_START, JPEG_END, SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA


class Frame(NamedTuple):
    """Frame header of a JPEG: size as stored, before the EXIF rotation, and number of components."""

    height: int
    width: int
    components: int


def frame_of(content: bytes) -> Frame | None:
    """Find the frame header of a JPEG, given its first bytes; None if it lies farther back."""
    for marker, place in _segments(content):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            sides = content[place + 5 : place + 9]
            return Frame(int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big"), content[place + 9])
    return None


def scan_start(content: bytes) -> int | None:
    """Find the start of the compressed data of a JPEG, given its first bytes; None if it lies farther back.

    An end marker before this position belongs to a thumbnail in the metadata.
    """
    return next((place for marker, place in _segments(content) if marker == SCAN), None)


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and position of the segments at the start of a JPEG, up to the compressed data."""
    place, marker = 2, 0
    while place + 9 < len(content) and content[place] == 0xFF and marker != SCAN:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        yield marker, place
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
