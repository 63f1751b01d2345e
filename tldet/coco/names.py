"""Images of a dataset found by paths, as other folders, tools and systems write them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

Parts = tuple[str, ...]


def parts_of(name: str) -> Parts:
    """Split a path into folders and file name, whichever system wrote it."""
    return tuple(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".", ".."))


class FileNames:
    """Finds the images of a dataset by paths.

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
        """Positions of the images that ``path`` may be: those whose folders agree too, else those of the same name."""
        parts = parts_of(path)
        same = self._ranks.get(parts[-1], []) if parts else []
        closest = [rank for rank in same if self._agree(rank, parts)]
        return closest or same

    def agrees(self, rank: int, path: str) -> bool:
        """Tell whether ``path`` may be the image at position ``rank``."""
        own, parts = self._parts[rank], parts_of(path)
        return not own or bool(parts and self._agree(rank, parts)) or rank in self.find(path)

    def _agree(self, rank: int, parts: Parts) -> bool:
        own = self._parts[rank] or ()
        shared = min(len(own), len(parts))
        return own[-shared:] == parts[-shared:]
