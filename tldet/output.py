"""Folders and JSON files that a person asked for: what cannot be written is theirs to mend."""

from __future__ import annotations

import json
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
