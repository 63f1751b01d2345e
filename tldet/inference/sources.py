"""Inputs of ``tldet predict``: images, folders, globs, videos, a camera."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tldet.data.images import EXTENSIONS, START, heif_readable, is_heif, is_image, is_tiff
from tldet.errors import DataError
from tldet.inference.video import open_video

log = logging.getLogger(__name__)
DRAWABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        kind: "picture", "video" or "camera".
        path: the file; the number of a camera.
        name: path of the drawn image or video inside the output folder.
    """

    kind: str
    path: Path
    name: Path


class Found(NamedTuple):
    """Inputs, and the number of skipped files and folders inside them by reason."""

    sources: list[Source]
    skipped: dict[str, int]


def find_sources(inputs: Sequence[str]) -> Found:
    """Find the images, videos and cameras of the command-line arguments, in order.

    Folders are searched with their subfolders. Links to folders are followed; each folder is searched once. Files are
    recognized by content; hidden files are skipped.

    Raises:
        DataError: an argument names nothing.
    """
    found: list[Source] = []
    skipped: Counter[str] = Counter()
    for given in inputs:
        path = Path(given)
        if given.isdigit() and not path.exists():
            found.append(Source("camera", path, Path(f"camera_{given}")))
        elif path.is_dir():
            found += _inside(path, skipped)
        elif path.is_file():
            found.append(_named_file(path))
        else:
            matched = sorted(Path(p) for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207
            if not matched:
                raise DataError(f"{given}: no such image, folder, video or camera")
            found += map(_named_file, matched)
    return Found(_distinct(found), dict(skipped.most_common()))


def _named_file(path: Path) -> Source:
    """Create the source of a file named by the user; an unknown file is taken as an image and fails on reading."""
    return Source(kind_of(path) or "picture", path, Path(path.name))


def _inside(folder: Path, skipped: Counter[str]) -> list[Source]:
    """Find the images and videos of a folder; other files are counted in ``skipped`` and logged."""
    found: list[Source] = []
    passed: Counter[str] = Counter()
    for path in _files(folder, passed):
        kind, reason = ("", "hidden") if path.name.startswith(".") else _kind_or_reason(path)
        if kind:
            found.append(Source(kind, path, path.relative_to(folder)))
        else:
            passed[reason] += 1
    listed = ", ".join(f"{number} {reason}" for reason, number in passed.most_common())
    if not found:
        raise DataError(f"{folder}: contains no image or video" + (f" (skipped: {listed})" if passed else ""))
    if passed:
        log.info("%s: skipped %s", folder, listed)
    skipped.update(passed)
    return sorted(found, key=lambda source: source.path)


def _files(folder: Path, passed: Counter[str]) -> Iterator[Path]:
    """Yield the files below a folder. Links are followed last, so that real paths are preferred to linked ones."""
    waiting, seen = [folder], set()
    while waiting:
        place = waiting.pop(0)
        identity = (place.stat().st_dev, place.stat().st_ino)
        if identity in seen:
            passed["linked folder already searched"] += 1
            continue
        seen.add(identity)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            passed["folder that cannot be read"] += 1
            continue
        plain: list[Path] = []
        for entry in entries:
            if not os.path.isdir(entry.path):  # noqa: PTH112  (is_dir() raises for a link to itself)
                yield Path(entry.path)
            elif entry.name.startswith("."):
                passed["hidden folder"] += 1
            elif entry.is_symlink():
                waiting.append(Path(entry.path))
            else:
                plain.append(Path(entry.path))
        waiting[:0] = plain


def _kind_or_reason(path: Path) -> tuple[str, str]:
    """Return the kind of a file and "", or "" and the reason for skipping it."""
    if not path.exists():
        return "", "broken link"
    if not path.is_file():
        return "", "special file"
    kind = kind_of(path)
    if kind == "picture" and not heif_readable() and is_heif(_start(path)):
        return "", f"{path.suffix.lower()} (install pillow-heif to read it)"
    return kind or "", path.suffix.lower() or "without extension"


def kind_of(path: Path) -> str | None:
    """Return "picture" or "video" by content, or by extension if the content is inconclusive; else None."""
    extension = path.suffix.lower()
    by_name = "picture" if extension in EXTENSIONS else "video" if extension in VIDEOS else None
    start = _start(path)
    if is_image(start) or (not extension and is_tiff(start)):  # raw formats of cameras look like TIFF
        return "picture"
    if by_name == "video" or _is_text(start):
        return by_name
    return "video" if _is_video(path) else by_name


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(START)
    except OSError:
        return b""


def _is_text(start: bytes) -> bool:
    """Return True if a file begins like text or is empty, which no video does."""
    if b"\0" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.end >= START  # a character cut off at the end of the bytes read
    return True


def _is_video(path: Path) -> bool:
    try:
        container, _ = open_video(path)
    except DataError:
        return False
    container.close()
    return True


def _distinct(sources: list[Source]) -> list[Source]:
    """Inputs of the same name from two folders must not overwrite each other's drawing."""
    taken: set[str] = set()
    result = []
    for source in sources:
        drawn = name = _drawn(source)
        number = 1
        while str(name).lower() in taken:
            number += 1
            name = drawn.with_stem(f"{drawn.stem}_{number}")
        taken.add(str(name).lower())
        result.append(Source(source.kind, source.path, name))
    return result


def _drawn(source: Source) -> Path:
    """Return the output path: images keep their format if it can be written, videos become MP4."""
    if source.kind != "picture":
        return source.name.with_suffix(".mp4")
    return source.name if source.name.suffix.lower() in DRAWABLE else source.name.with_suffix(".png")
