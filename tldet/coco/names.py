"""Lookup of a dataset's images by paths from other folders, tools and operating systems."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

Parts = tuple[str, ...]


def parts_of(name: str) -> Parts:
    """Split a POSIX or Windows path into folders and file name."""
    return tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", ".."))


class FileNames:
    """Lookup of the images of a dataset by path.

    Args:
        names: file name of each image, None for an unknown one.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        self._parts = [None if name is None else parts_of(name) for name in names]
        self._ranks: defaultdict[str, list[int]] = defaultdict(list)
        for rank, parts in enumerate(self._parts):
            if parts:
                self._ranks[parts[-1]].append(rank)

    def find(self, path: str) -> list[int]:
        """Return the positions of the images ``path`` may refer to: same name and folders if any, else same name."""
        parts = parts_of(path)
        same = self._ranks.get(parts[-1], []) if parts else []
        closest = [rank for rank in same if self._agree(rank, parts)]
        return closest or same

    def agrees(self, rank: int, path: str) -> bool:
        """Return True if ``path`` may refer to the image at position ``rank``."""
        own, parts = self._parts[rank], parts_of(path)
        return not own or bool(parts and self._agree(rank, parts)) or rank in self.find(path)

    def _agree(self, rank: int, parts: Parts) -> bool:
        own = self._parts[rank] or ()
        shared = min(len(own), len(parts))
        return own[-shared:] == parts[-shared:]
