"""``data.yaml`` of YOLO: class names, and the images of each split by the path rules that people use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tldet.data.image_formats import EXTENSIONS
from tldet.errors import DataError
from tldet.system.inputs import exists, is_file, is_folder, read_file, real_path, require_file
from tldet.text import are, counted

_MAX_BYTES = 1 << 22
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_NAMES, _SPLIT = re.compile(rb"^names\s*:", re.MULTILINE), re.compile(rb"^(train|val|valid|test|nc)\s*:", re.MULTILINE)


@dataclass(frozen=True)
class YamlData:
    """Contents of a ``data.yaml``.

    Attributes:
        names: class names; label k is the k-th.
        images: image files by split.
        keypoints: numbers per object that follow the box in the label files of a pose dataset.
        details: how paths were found, for the log.
        labels: label files by image, if the images were found by these.
    """

    names: tuple[str, ...]
    images: dict[str | None, list[Path]]
    keypoints: int = 0
    details: list[str] = field(default_factory=list)
    labels: dict[Path, Path] = field(default_factory=dict)


def is_data_yaml(start: bytes) -> bool:
    """Return True if the first bytes of a YAML file name classes and splits."""
    return _NAMES.search(start) is not None and _SPLIT.search(start) is not None


def read_data_yaml(path: Path) -> YamlData:
    """Read a ``data.yaml`` and find the images of its splits.

    Raises:
        DataError: a key is wrong, or a path does not exist; the message names the key and its line.
    """
    text, values = _load(path)
    details: list[str] = []
    images: dict[str | None, list[Path]] = {}
    seen: dict[Path, str] = {}
    for split, keys in _KEYS.items():
        key = next((key for key in keys if values.get(key)), None)
        if key is None:
            continue
        who = f"{path}: line {_line(text, key)}: {key}"
        locations = _locations(path, values, values[key], who, optional=split == "test", details=details)
        for location in locations:
            if seen.setdefault(real_path(location), key) != key:
                raise DataError(f"{who}: is the same as {seen[real_path(location)]} ({location})")
        images[split] = [image for location in locations for image in _images(location, path)]
    if not images:
        raise DataError(f"{path}: has neither train nor val")
    return YamlData(_names(path, text, values), images, _keypoints(path, values), details)


def _load(path: Path) -> tuple[str, dict[str, Any]]:
    if require_file(path, DataError).st_size > _MAX_BYTES:
        raise DataError(f"{path}: is larger than {_MAX_BYTES >> 20} MiB; it should contain class names and paths only")
    try:
        text = read_file(path, DataError).decode("utf-8-sig")
        values = yaml.safe_load(text)
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8; save it as UTF-8") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise DataError(f"{path}: {line}is not valid YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: must hold the keys names, train and val")
    return text, values


def _line(text: str, key: str) -> int:
    """Return the line of a top-level key."""
    found = re.search(rf"^['\"]?{re.escape(key)}['\"]?\s*:", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _names(path: Path, text: str, values: dict[str, Any]) -> tuple[str, ...]:
    found, who = values.get("names"), f"{path}: line {_line(text, 'names')}: names"
    if isinstance(found, dict):
        if set(found) != set(range(len(found))):
            raise DataError(f"{who}: must be numbered 0 to {len(found) - 1} without gaps")
        found = [found[number] for number in range(len(found))]
    if not isinstance(found, list) or not found:
        raise DataError(f"{who}: must be a list of class names, or 'number: name' from 0")
    names = tuple(str(name).strip() for name in found if isinstance(name, str | int | float))
    if len(names) < len(found) or not all(names):
        raise DataError(f"{who}: contains a name that is empty or not text")
    if twice := next((name for row, name in enumerate(names) if name in names[:row]), None):
        raise DataError(f"{who}: {twice!r} occurs twice")
    count = values.get("nc")
    if count is not None and count != len(names):
        shown = str(count) if isinstance(count, int) else "not a whole number"
        known = f"there {are(len(names))} {counted(len(names), 'name')}"
        raise DataError(f"{path}: line {_line(text, 'nc')}: nc is {shown}, but {known}")
    return names


def _keypoints(path: Path, values: dict[str, Any]) -> int:
    shape = values.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(isinstance(one, int) and one > 0 for one in shape):
        raise DataError(f"{path}: kpt_shape must be two whole numbers")
    return int(shape[0]) * int(shape[1])


def _locations(
    path: Path, values: dict[str, Any], entry: Any, who: str, *, optional: bool, details: list[str]
) -> list[Path]:
    """Return the folders and list files of a split; none for an ``optional`` one that does not exist."""
    entries = entry if isinstance(entry, list) else [entry]
    if not all(isinstance(one, str) and one for one in entries):
        raise DataError(f"{who}: must be a path or a list of paths")
    stated = values.get("path")
    if stated is not None and not isinstance(stated, str):
        raise DataError(f"{path}: path must be the path of a folder")
    bases = [path.parent / stated] if stated else []
    found = []
    for one in entries:
        location = next((location for location in candidates(one, [*bases, path.parent]) if exists(location)), None)
        if location is None and not optional:
            raise DataError(
                f"{who}: {one!r}: no such file or folder below {' or '.join(map(str, [*bases, path.parent]))}"
            )
        if location is None:
            details.append(f"test: {one!r} does not exist")
            continue
        if real_path(location) != real_path([*bases, path.parent][0] / one):
            details.append(f"{one!r} found as {location}")
        found.append(location)
    return found


def candidates(entry: str, bases: Sequence[Path]) -> Iterator[Path]:
    """Yield the paths that a path of ``data.yaml`` may stand for, the literal one first.

    Roboflow writes ``../train/images`` for ``train/images`` beside the file; others leave the absolute path of the
    machine on which the file was written.
    """
    clean = entry.replace("\\", "/")
    yield from (base / clean for base in bases)
    parts = [part for part in PurePosixPath(clean).parts if part not in ("..", ".", "/")]
    for start in range(len(parts)):
        yield from (base.joinpath(*parts[start:]) for base in reversed(bases))


def _images(location: Path, yaml_path: Path) -> Iterator[Path]:
    """Yield the images of a folder and its subfolders, those that a text file lists, or a single image."""
    if is_folder(location):
        yield from sorted(one for one in location.rglob("*") if one.suffix.lower() in EXTENSIONS and is_file(one))
        return
    if location.suffix.lower() in EXTENSIONS:
        yield location
        return
    lines = read_file(location, DataError).decode(errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        if name := line.strip():
            image = next((one for one in candidates(name, [location.parent, yaml_path.parent]) if is_file(one)), None)
            if image is None:
                raise DataError(f"{location}: line {number}: no image {name!r}")
            yield image


def dump_data_yaml(names: Sequence[str], splits: Sequence[str]) -> str:
    """Return the text of a ``data.yaml`` beside ``images/SPLIT`` and ``labels/SPLIT``."""
    paths: dict[str, Any] = {split: f"images/{split}" for split in splits}
    whole = {"path": ".", **paths, "nc": len(names), "names": dict(enumerate(names))}
    escaped = any("\x85" in name for name in names)  # a line break in YAML
    return str(yaml.safe_dump(whole, sort_keys=False, allow_unicode=not escaped))
