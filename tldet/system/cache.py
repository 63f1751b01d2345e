"""Cache of the results of long computations, in ``$TLDET_CACHE`` or ``~/.cache/tldet``.

Each entry has a checksum; a damaged entry is computed again. A user without a home folder has the cache among temporary
files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tldet.errors import DataError, OutputError
from tldet.system.inputs import read_file
from tldet.system.output import write_bytes

log = logging.getLogger(__name__)
_VERSION = 2  # of the entry format


def cache_root() -> Path:
    """Return the folder of the cache, which can be removed at any time."""
    if root := os.environ.get("TLDET_CACHE"):
        return Path(root)
    try:
        return Path.home() / ".cache" / "tldet"
    except RuntimeError:  # HOME is not set and the user has no entry in the password database, as in containers
        return Path(tempfile.gettempdir(), f"tldet-{getattr(os, 'getuid', int)()}")


def remembered(kind: str, key: str, compute: Callable[[], Any]) -> tuple[Any, bool]:
    """Return a small result from the cache, or compute and cache it.

    Args:
        kind: kind of result; a folder in the cache.
        key: everything the result depends on.
        compute: computes the result, a JSON value.

    Returns:
        The result, and True if it was cached. If the folder cannot be written, the result is computed each time.
    """
    path = cache_root() / kind / f"{hashlib.sha256(f'{_VERSION} {key}'.encode()).hexdigest()[:32]}.json"
    if os.path.lexists(path):
        try:
            return read_entry(path), True
        except DataError as error:
            log.warning("%s; computing it again", error)
            discard_cached(path)
    result = compute()
    with contextlib.suppress(OutputError):
        write_entry(path, result)
    return result, False


def write_entry(path: Path, value: Any) -> None:
    """Write a JSON value behind its checksum."""
    text = json.dumps(value).encode()
    write_bytes(path, _checksum(text) + b"\n" + text, sync=False)


def read_entry(path: Path) -> Any:
    """Read a value of :func:`write_entry`.

    Raises:
        DataError: the file cannot be read or is damaged.
    """
    checksum, _, text = read_file(path, DataError).partition(b"\n")
    try:
        if checksum == _checksum(text):
            return msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass
    raise DataError(f"{path}: is a damaged cache entry")


def discard_cached(path: Path) -> None:
    """Remove a file or folder of the cache, if there is one and it can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _checksum(text: bytes) -> bytes:
    return f"{zlib.crc32(text):08x}".encode()
