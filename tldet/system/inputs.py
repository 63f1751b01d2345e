"""Reading of files named by the user: regular files only, and one line for every other case.

A named pipe would block, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal

from tldet.errors import TldetError

_CHUNK = 1 << 20  # bytes read at a time
Kind = Literal["file", "folder", "other"]
PathName = str | PathLike[str]
NOT_FILES: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
)


def require_file(path: PathName, error: type[TldetError], name: str | None = None) -> os.stat_result:
    """Check that a path leads to a regular file, and return the file's status.

    Args:
        path: the file.
        error: the kind of error to raise.
        name: name of the file in messages; None takes its path.

    Raises:
        TldetError: an ``error``: the file is missing, not a regular file, or its path is not valid.
    """
    name = os.fspath(path) if name is None else name
    try:
        status = os.stat(path)  # noqa: PTH116  (also takes the name of a descriptor)
    except (FileNotFoundError, NotADirectoryError):
        broken = os.path.islink(path)  # noqa: PTH114
        raise error(f"{name}: {'is a link to a missing file' if broken else 'no such file'}") from None
    except OSError as problem:
        raise error(f"{name}: cannot be read: {problem.strerror}") from None
    except ValueError:
        raise error(f"{name!r}: is not a valid path: it contains a null character") from None
    if not stat.S_ISREG(status.st_mode):
        what = next((text for test, text in NOT_FILES if test(status.st_mode)), "is a device")
        raise error(f"{name}: {what}, not a regular file")
    return status


def read_file(path: PathName, error: type[TldetError], name: str | None = None) -> bytes:
    """Read a regular file.

    Args:
        path: the file.
        error: the kind of error to raise.
        name: name of the file in messages; None takes its path.

    Raises:
        TldetError: an ``error``: the file cannot be read.
    """
    name = os.fspath(path) if name is None else name
    status = require_file(path, error, name)
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise error(f"{name}: cannot be read: {problem.strerror}") from None
    except MemoryError:
        raise error(f"{name}: does not fit into memory ({status.st_size / 2**30:.1f} GiB)") from None


def file_hash(path: Path, kind: str = "sha256") -> str:
    """Return the digest of a file in hexadecimal digits."""
    found = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            found.update(block)
    return found.hexdigest()


def exists(path: PathName) -> bool:
    """Return True if there is anything at a path; False for an invalid path."""
    return os.path.exists(path)  # noqa: PTH110  (Path.exists raises OSError if the name is too long)


def is_file(path: PathName) -> bool:
    """Return True for a regular file; False for any other path, an invalid one included."""
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises OSError if the name is too long)


def is_folder(path: PathName) -> bool:
    """Return True for a folder; False for any other path, an invalid one included."""
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises OSError if the name is too long)


def entry_kind(entry: os.DirEntry[str]) -> Kind:
    """Classify an entry of a folder; "other" includes pipes, devices, broken links and loops of links."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:
        return "other"


def real_path(path: PathName) -> Path:
    """Make a path absolute and follow its links as far as possible, also if they form a loop."""
    try:
        return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for a loop
    except ValueError:  # a null character
        return Path(path).absolute()
