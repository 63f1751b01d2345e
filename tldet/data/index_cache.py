"""Cache of parsed annotations: flat arrays, memory-mapped by all processes that use them.

Size, modification time and CRC-32 of each file are checked when it is opened. Of the text of the segmentations, which
is several times as large as all other arrays, only the start has a CRC-32: damage further on that keeps size and time
is not found.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tldet.coco.reader import Write
from tldet.errors import DataError, OutputError
from tldet.system.cache import cache_root, discard_cached, read_entry, write_entry
from tldet.system.inputs import real_path, require_file

log = logging.getLogger(__name__)
_CACHE_VERSION = 9
UNREADABLE = (DataError, OSError, ValueError, KeyError, TypeError, EOFError)  # raised for a missing or damaged cache
VALUES_FILE = "values.json"
TEXT = "raw"  # field of the text of the segmentations
_START = 4096  # bytes of the text with a checksum; reading all of it takes longer than all other steps of opening
_HEAD = 65536  # bytes of the JSON in the key of its cache entry
Fields = dict[str, Any]


def cached_fields(path: Path, parse: Callable[[Write | None], Fields]) -> Fields:
    """Return the fields of the index of a JSON from the cache; parse and cache them if the file is new or changed.

    Args:
        path: the JSON.
        parse: returns the fields: arrays, and values that can be written as JSON. It takes a function that writes the
            text of the segmentations, which become the field ``raw``; None to return this field too.

    Raises:
        DataError: the JSON cannot be read; see ``parse`` for the other errors.
    """
    folder = _cache_folder(path)
    try:
        return _open(folder)
    except UNREADABLE as error:
        if os.path.lexists(folder):
            log.warning("%s: the cached annotations in %s are damaged and are rebuilt (%s)", path, folder, error)
        discard_cached(folder)
    try:
        _store(parse, folder)
    except (OSError, OutputError) as error:
        log.warning("the annotations are not cached in %s: %s", folder, error)
        return parse(None)
    try:
        return _open(folder)
    except UNREADABLE as error:
        log.warning("the annotations are not cached in %s: %s", folder, error)
        return parse(None)


def _cache_folder(path: Path) -> Path:
    status = require_file(path, DataError)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    stamp = f"{_CACHE_VERSION} {real_path(path)} {status.st_size} {status.st_mtime_ns} ".encode()
    return cache_root() / "index" / hashlib.sha256(stamp + head).hexdigest()[:32]


def _store(parse: Callable[[Write | None], Fields], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with _BytesFile(temporary / f"{TEXT}.npy") as file:
            fields = parse(file.write)
        arrays = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        stamps = {name: _stamp(temporary / f"{name}.npy") for name in (*arrays, TEXT)}
        values = {name: value for name, value in fields.items() if name not in arrays}
        write_entry(temporary / VALUES_FILE, {"arrays": stamps, "values": values})
        if not folder.exists():
            temporary.rename(folder)
    finally:
        discard_cached(temporary)


class _BytesFile:
    """File of a uint8 array in numpy's format, written part by part."""

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0

    def __enter__(self) -> _BytesFile:
        self.file = self.path.open("wb")
        self._write_header()
        return self

    def __exit__(self, *_: object) -> None:
        with self.file:
            self.file.seek(0)
            self._write_header()  # padded by numpy for a longer shape

    def write(self, part: bytes) -> None:
        """Append to the array."""
        self.file.write(part)
        self.size += len(part)

    def _write_header(self) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.size,)}
        np.lib.format.write_array_header_1_0(self.file, header)


def _stamp(path: Path) -> list[int]:
    """Return size, modification time and CRC-32 of a cached array; of the text, the CRC-32 of its start."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        status = os.fstat(file.fileno())
        with memoryview(content) as whole, whole[: _START if path.stem == TEXT else len(whole)] as part:
            return [status.st_size, status.st_mtime_ns, zlib.crc32(part)]


def _open(folder: Path) -> Fields:
    entry = read_entry(folder / VALUES_FILE)
    fields: Fields = dict(entry["values"])
    for name, stamp in entry["arrays"].items():
        path = folder / f"{name}.npy"
        if _stamp(path) != stamp:
            raise DataError(f"{path.name} has changed")
        fields[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))  # a view: faster to index
    return fields
