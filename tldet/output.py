"""Folders and JSON files that a person asked for: what cannot be written is theirs to mend."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tldet.errors import DataError


def make_folder(folder: str | Path) -> Path:
    """Make a folder, those above it too.

    Raises:
        DataError: it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None
    return Path(folder)


def write_json(path: str | Path, content: object, *, indent: int | None = None, whole: bool = False) -> None:
    """Write ``content`` as JSON; its folder is made.

    Args:
        path: the file.
        content: what it holds.
        indent: spaces a level; None writes one line.
        whole: by way of a second file beside it, so that ``path`` is at any moment the old file or the new one.

    Raises:
        DataError: it cannot be written.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    path = Path(path)
    make_folder(path.parent)
    written = path.with_name(f".{path.name}.tmp") if whole else path
    try:
        # A lone surrogate becomes its JSON escape.
        written.write_text(text, encoding="utf-8", errors="backslashreplace")
        if whole:
            written.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None


def write_bytes(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file; its folder is created.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        with path.open("wb") as file:
            file.write(content)
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from None


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file; a lone surrogate becomes its escape. See :func:`write_bytes`."""
    write_bytes(path, text.encode(errors="backslashreplace"), sync=False)
