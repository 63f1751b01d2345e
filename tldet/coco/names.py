"""Lookup of a dataset's images by paths from other folders, tools and operating systems."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from urllib.parse import unquote

Parts = tuple[str, ...]


def parts_of(name: str) -> Parts:
    """Split a POSIX or Windows path into folders and file name."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def fold(name: str) -> str:
    """Normalize letter case and Unicode form (macOS decomposes accents)."""
    return unicodedata.normalize("NFC", name).casefold()


def _loosened(parts: Parts) -> Parts:
    return tuple(fold(unquote(part)) for part in parts)


class FileNames:
    """Lookup of the images of a dataset by path.

    If no image has the name of a path, percent escapes, letter case and Unicode form are ignored.

    Args:
        names: file name of each image, None for an unknown one.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        self._names = names

    @cached_property
    def _exact(self) -> _Stage:
        return _Stage([() if name is None else parts_of(name) for name in self._names])

    @cached_property
    def _loose(self) -> _Stage:
        return _Stage([_loosened(parts) for parts in self._exact.parts])

    def find(self, path: str) -> list[int]:
        """Return the positions of the images ``path`` may refer to: same name and folders if any, else same name."""
        parts = parts_of(path)
        return self._exact.find(parts) or self._loose.find(_loosened(parts))

    def agrees(self, rank: int, path: str) -> bool:
        """Return True if ``path`` may refer to the image at position ``rank``."""
        exact, parts = self._exact, parts_of(path)
        return not exact.parts[rank] or bool(parts and exact.agree(rank, parts)) or rank in self.find(path)


class _Stage:
    """Paths compared part by part; an unknown one has none."""

    def __init__(self, parts: Sequence[Parts]) -> None:
        self.parts = parts
        self._ranks: defaultdict[str, list[int]] = defaultdict(list)
        for rank, one in enumerate(parts):
            if one:
                self._ranks[one[-1]].append(rank)

    def find(self, parts: Parts) -> list[int]:
        same = self._ranks.get(parts[-1], []) if parts else []
        closest = [rank for rank in same if self.agree(rank, parts)]
        return closest or same

    def agree(self, rank: int, parts: Parts) -> bool:
        own = self.parts[rank]
        shared = min(len(own), len(parts))
        return own[-shared:] == parts[-shared:]
