"""What ``tldet predict`` is given: pictures, folders, globs, videos, a camera."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tldet.data.images import EXTENSIONS
from tldet.errors import DataError

DRAWABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


@dataclass(frozen=True)
class Source:
    """One input: ``kind`` is "picture", "video" or "camera"; ``name`` is where its drawing goes, without a folder."""

    kind: str
    path: Path
    name: Path


def find_sources(inputs: Sequence[str]) -> list[Source]:
    """The pictures, videos and cameras that arguments name, in order.

    Raises:
        DataError: an argument names nothing.
    """
    found: list[Source] = []
    for given in inputs:
        path = Path(given)
        if given.isdigit() and not path.exists():
            found.append(Source("camera", path, Path(f"camera_{given}")))
        elif path.is_dir():
            inside = [p for p in sorted(path.rglob("*")) if p.is_file() and kind_of(p)]
            if not inside:
                raise DataError(f"{path}: holds no picture or video")
            found += [Source(kind_of(p) or "", p, p.relative_to(path)) for p in inside]
        elif path.is_file():
            found.append(Source(kind_of(path) or "picture", path, Path(path.name)))
        else:
            matched = sorted(Path(p) for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207
            if not matched:
                raise DataError(f"{given}: no such picture, folder, video or camera")
            found += [Source(kind_of(p) or "picture", p, Path(p.name)) for p in matched]
    return _distinct(found)


def kind_of(path: Path) -> str | None:
    """By its extension "picture" or "video", or None."""
    extension = path.suffix.lower()
    return "picture" if extension in EXTENSIONS else "video" if extension in VIDEOS else None


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
    """A picture keeps its format where it can be written, video becomes MP4."""
    if source.kind != "picture":
        return source.name.with_suffix(".mp4")
    return source.name if source.name.suffix.lower() in DRAWABLE else source.name.with_suffix(".png")
