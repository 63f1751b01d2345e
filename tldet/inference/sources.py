"""Inputs of ``tldet predict``: images, folders, globs, videos, a camera."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tldet.data.image_formats import EXTENSIONS, START, VIDEO_EXTENSIONS, heif_readable, is_heif, is_image, is_tiff
from tldet.errors import DataError
from tldet.inference.convert import URL
from tldet.inference.output_names import Names, drawn_name
from tldet.inference.video import open_video
from tldet.system.inputs import exists, is_file, is_folder, require_file

log = logging.getLogger(__name__)
_DIGITS = 4  # largest length of a camera number


@dataclass(frozen=True)
class InputSource:
    """One input.

    Attributes:
        kind: "image", "video" or "camera".
        path: the file; the number of a camera.
        name: path of the drawn image or video inside the output folder.
    """

    kind: str
    path: Path
    name: Path


class _Found(NamedTuple):
    """Inputs, and the number of skipped files and folders inside them by reason."""

    sources: list[InputSource]
    skipped: dict[str, int]


def find_sources(inputs: Sequence[str]) -> _Found:
    """Find the images, videos and cameras of the command-line arguments, in order.

    Folders are searched with their subfolders. Links to folders are followed; each folder is searched once. Files are
    recognized by content; hidden files are skipped.

    Raises:
        DataError: an argument matches no file and no camera.
    """
    found: list[InputSource] = []
    skipped: Counter[str] = Counter()
    for given in inputs:
        if not given:
            raise DataError("an input is an empty string; use images, folders, globs, videos or a camera number")
        path = Path(given)
        if given.isascii() and given.isdigit() and len(given) <= _DIGITS and not exists(path):
            found.append(InputSource("camera", path, Path(f"camera_{given}")))
        elif is_folder(path):
            found += _inside(path, skipped)
        elif exists(path):
            require_file(path, DataError)
            found.append(_named_file(path))
        else:
            found += _matching(given, skipped)
    return _Found(_distinct(found), dict(skipped.most_common()))


def _matching(pattern: str, skipped: Counter[str]) -> list[InputSource]:
    """Find the files that match a glob; pipes and devices are counted in ``skipped``."""
    if URL.match(pattern):
        raise DataError(f"{pattern}: is a URL; download the file, or use Predictor.predict in Python")
    matched = sorted(path for path in _glob(Path(pattern), skipped) if not is_folder(path))
    files = [path for path in matched if is_file(path)]
    if not files:
        raise DataError(f"{pattern}: no such image, folder, video or camera")
    if len(files) < len(matched):
        skipped["special file"] += len(matched) - len(files)
    return [_named_file(path) for path in files]


def _glob(pattern: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Yield the paths that match a glob; ``**`` follows links to folders, and searches each folder once."""
    position = next((i for i, part in enumerate(pattern.parts) if part == "**"), None)
    if position is None:
        yield from map(Path, glob.glob(str(pattern)))  # noqa: PTH207
        return
    above, below = Path(*pattern.parts[:position]), Path(*pattern.parts[position + 1 :])
    for folder in _glob(above, skipped) if above.parts else [above]:
        if is_folder(folder):
            paths = [path.relative_to(folder) for path in _files(folder, skipped) if not path.name.startswith(".")]
            yield from (folder / path for path in paths if _fits(path.parts, below.parts))


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return True if the last parts of a path match the parts of a glob; another ``**`` matches any number of parts."""
    if "**" not in patterns:
        ends = parts[len(parts) - len(patterns) :] if len(parts) >= len(patterns) else ()
        return len(ends) == len(patterns) and all(map(fnmatch.fnmatch, ends, patterns))
    position = patterns.index("**")
    starts = range(len(parts) - position + 1)
    rest = patterns[position + 1 :]
    return any(
        _fits(parts[start : start + position], patterns[:position]) and _fits(parts[start + position :], rest)
        for start in starts
    )


def _named_file(path: Path) -> InputSource:
    """Create the source of a file named by the user; an unknown file is taken as an image and fails on reading."""
    return InputSource(input_kind(path) or "image", path, Path(path.name))


def _inside(folder: Path, skipped: Counter[str]) -> list[InputSource]:
    """Find the images and videos of a folder; other files are counted in ``skipped`` and logged."""
    found: list[InputSource] = []
    passed: Counter[str] = Counter()
    for path in _files(folder, passed):
        kind, reason = ("", "hidden") if path.name.startswith(".") else _kind_or_reason(path)
        if kind:
            found.append(InputSource(kind, path, path.relative_to(folder)))
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
        current = waiting.pop(0)
        identity = (current.stat().st_dev, current.stat().st_ino)
        if identity in seen:
            passed["linked folder already searched"] += 1
            continue
        seen.add(identity)
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
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
    if not is_file(path):
        broken = "broken link" if os.path.islink(path) else "file that cannot be read"  # noqa: PTH114  (never raises)
        return "", "special file" if exists(path) else broken
    kind = input_kind(path)
    if kind == "image" and not heif_readable() and is_heif(_start(path)):
        return "", f"{path.suffix.lower()} (install pillow-heif to read it)"
    return kind or "", path.suffix.lower() or "without extension"


def input_kind(path: Path) -> str | None:
    """Return "image" or "video" by content, or by extension if the content is inconclusive; else None."""
    extension = path.suffix.lower()
    by_name = "image" if extension in EXTENSIONS else "video" if extension in VIDEO_EXTENSIONS else None
    start = _start(path)
    if is_image(start) or (not extension and is_tiff(start)):  # raw formats of cameras look like TIFF
        return "image"
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


def _distinct(sources: list[InputSource]) -> list[InputSource]:
    """Give inputs of the same name from different folders different output names."""
    names = Names()
    return [
        InputSource(source.kind, source.path, names.claim(drawn_name(source.kind, source.name))) for source in sources
    ]
