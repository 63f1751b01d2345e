"""Detection of equal images in several datasets."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tldet.data.tracking import Track
from tldet.errors import DataError
from tldet.system.inputs import is_file, real_path, require_file

TAIL = 4096  # bytes at the end of a file, in which JPEG and PNG files of equal size differ


def same_images(
    paths: Sequence[Path], owners: NDArray[np.int64], track: Track = iter, *, missing: bool = False
) -> NDArray[np.int64]:
    """Find for each image the first equal one: the same file, or a file of another source with the same bytes.

    Images of one source are equal only if they are the same file. If several files of a source have the same bytes, the
    first is equal to the first of another source, the second to the second, and so on.

    Args:
        paths: (P) image files.
        owners: (P,) int64, number of the source of each image.
        track: wraps the images that are read, to show progress.
        missing: files may be missing; missing files are equal if their paths are.

    Returns:
        (P,) int64 position of the first equal image, at most its own.

    Raises:
        DataError: a file cannot be read.
    """
    stats = [None if missing and not is_file(path) else require_file(path, DataError) for path in paths]
    same = _firsts([_file(path, stat) for path, stat in zip(paths, stats, strict=True)])
    alone = [i for i in np.flatnonzero(same == np.arange(len(paths))).tolist() if stats[i] is not None]
    sizes = [0 if stat is None else stat.st_size for stat in stats]
    by_size = _across(alone, owners, lambda i: sizes[i])
    by_tail = _across(track(by_size), owners, lambda i: (sizes[i], _digest(paths[i], sizes[i] - TAIL)))
    turns: defaultdict[tuple[str, int], int] = defaultdict(int)
    firsts: dict[tuple[str, int], int] = {}
    to = np.arange(len(paths))
    for position in track(by_tail):
        digest, owner = _digest(paths[position]), int(owners[position])
        turn = turns[digest, owner]
        turns[digest, owner] += 1
        to[position] = firsts.setdefault((digest, turn), position)
    return to[same]


def _file(path: Path, stat: os.stat_result | None) -> Hashable:
    """Return a key of the file behind a path; the real path if the file system has no file numbers or it is missing."""
    return (stat.st_dev, stat.st_ino) if stat is not None and stat.st_ino else real_path(path)


def _firsts(keys: Sequence[Hashable]) -> NDArray[np.int64]:
    firsts: dict[Hashable, int] = {}
    return np.array([firsts.setdefault(key, i) for i, key in enumerate(keys)], np.int64)


def _across(positions: Iterable[int], owners: NDArray[np.int64], key: Callable[[int], Hashable]) -> list[int]:
    """Return the positions, in order, whose key also occurs in another source."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position in positions:
        groups[key(position)].append(position)
    shared = (group for group in groups.values() if len({int(owners[i]) for i in group}) > 1)
    return sorted(position for group in shared for position in group)


def _digest(path: Path, start: int = 0) -> str:
    """Return the SHA-256 of a file from byte ``start`` on."""
    digest = hashlib.sha256()
    for block in _blocks(path, max(0, start)):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path, start: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            while block := file.read(1 << 20):
                yield block
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
