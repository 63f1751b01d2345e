"""Files and folders named by the user; the functions that read a file are those of :mod:`tldet.runtime.files`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from tldet.runtime.files import PathName as PathName
from tldet.runtime.files import is_file as is_file
from tldet.runtime.files import read_file as read_file
from tldet.runtime.files import require_file as require_file

_CHUNK = 1 << 20  # bytes read at a time
Kind = Literal["file", "folder", "other"]


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
