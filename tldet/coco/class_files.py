"""Class names of the user (``--classes``): names or a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tldet.errors import ConfigError
from tldet.system.inputs import exists, is_folder, read_file


def read_names(given: Sequence[str]) -> tuple[str, ...]:
    """Read class names from the command line: names, or a file (:func:`read_class_names`), in their order.

    Raises:
        ConfigError: the file cannot be read, or a name is empty or repeated.
    """
    if len(given) == 1 and exists(given[0]) and not is_folder(given[0]):
        return read_class_names(Path(given[0]))
    return checked_names(given, "names on the command line")


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names: one per line, a JSON list of names, or COCO JSON, whose categories are sorted by id.

    Raises:
        ConfigError: the file cannot be read, or a name is empty, repeated or not a string.
    """
    content = read_file(path, ConfigError)
    try:
        text = content.decode("utf-8-sig")
        if not text.lstrip().startswith(("[", "{")):
            return checked_names([line.strip() for line in text.splitlines() if line.strip()], str(path))
        value = json.loads(text)
        listed = value["categories"] if isinstance(value, dict) else value
        if listed and all(isinstance(one, dict) for one in listed):
            listed = [one["name"] for one in sorted(listed, key=lambda one: int(one["id"]))]
        if not all(isinstance(name, str) for name in listed):
            raise ValueError("a class name must be a string")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"--classes: {path}: expected a name per line, a JSON list of names or COCO JSON with categories ({error})"
        ) from None
    return checked_names(listed, str(path))


def checked_names(names: Sequence[str], source: str) -> tuple[str, ...]:
    """Check class names and return them as a tuple.

    Args:
        names: the names.
        source: origin of the names, such as a file, for messages.

    Raises:
        ConfigError: there are no names, or a name is empty or repeated.
    """
    if not names:
        raise ConfigError(f"--classes: {source} contains no class names")
    if not all(names):
        raise ConfigError(f"--classes: {source}: a name is empty")
    name, number = Counter(names).most_common(1)[0]
    if number > 1:
        raise ConfigError(f"--classes: {source}: {name!r} is repeated")
    return tuple(names)
