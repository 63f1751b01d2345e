"""Files of a source folder, and lookup of its images by the names in annotation files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from tldet.coco.names import FileNames, fold, parts_of
from tldet.data.file_names import is_hidden
from tldet.data.formats.frames import Frames
from tldet.data.image_formats import EXTENSIONS, VIDEO_EXTENSIONS
from tldet.data.layouts import RUN
from tldet.data.split_names import split_of
from tldet.errors import DataError
from tldet.system.inputs import entry_kind, is_file, is_folder

_DEPTH = 6  # levels of folders searched below the source
_START = 1 << 16  # bytes at the start of a file that show its format


class Tree:
    """Files below a folder, without hidden ones and the folders of training runs.

    Args:
        root: the folder, or one annotation file, which is then the only one.
        images: folder to look for images in, or a video; None looks in ``root``, then in its parent and the parent's
            folders.
        frames: folder for the frames of videos that annotations name; None does not look for videos.
    """

    def __init__(self, root: Path, images: Path | None = None, frames: Path | None = None) -> None:
        self.only = None if is_folder(root) else root
        self.root = root if self.only is None else root.parent
        self.images = images
        self.frames = frames
        self._starts: dict[Path, bytes] = {}

    @cached_property
    def paths(self) -> list[Path]:
        """All files, sorted."""
        return sorted(_walk(self.root, _DEPTH))

    def annotations(self, *suffixes: str) -> list[Path]:
        """Return the files with one of the suffixes (lower case, with the dot), or the chosen file if it has one."""
        return [path for path, name in self._names if name.endswith(suffixes)]

    @cached_property
    def _names(self) -> list[tuple[Path, str]]:
        return [(path, path.name.lower()) for path in (self.paths if self.only is None else [self.only])]

    def with_damaged(self, kinds: Mapping[Path, str | None], kind: str) -> list[Path]:
        """Return the files of a kind, and unrecognizable files (None) beside them, whose errors reading reports.

        Args:
            kinds: kind of each candidate.
            kind: the wanted one.
        """
        folders = {path.parent for path, one in kinds.items() if one == kind}
        return [path for path, one in kinds.items() if one == kind or (one is None and path.parent in folders)]

    def start(self, path: Path) -> bytes:
        """Return the first bytes of a file; empty if it cannot be read."""
        if path not in self._starts:
            try:
                with path.open("rb") as file:
                    self._starts[path] = file.read(_START)
            except OSError:
                self._starts[path] = b""
        return self._starts[path]

    def split(self, path: Path) -> str | None:
        """Return the split in the name of a file or of its folders."""
        return split_of(path.with_suffix(""), self.root)

    @cached_property
    def _videos(self) -> Frames | None:
        if self.frames is None:
            return None
        paths = self._inside.others if self.images is None or is_folder(self.images) else [self.images]
        videos = [path for path in paths if path.suffix.lower() in VIDEO_EXTENSIONS]
        return Frames(videos, self.frames) if videos else None

    @cached_property
    def _inside(self) -> _Images:
        if self.images is not None:
            return _Images(sorted(_walk(self.images, _DEPTH)) if is_folder(self.images) else [])
        return _Images(self.paths)

    @cached_property
    def _around(self) -> _Images:
        if self.images is not None:
            return _Images([])
        return _Images(sorted(_walk(Path(os.path.realpath(self.root)).parent, 1)))

    def image_paths(self) -> list[Path]:
        """Return the image files inside the source."""
        return self._inside.paths

    def find(self, name: str, near: Path) -> Path:
        """Return the image file that an annotation file names; its expected path if there is none.

        Args:
            name: path or file name, also of another machine or system, with or without extension.
            near: the annotation file; the image closest to it is taken.

        Raises:
            DataError: several images fit equally well.
        """
        parts = parts_of(name)
        if not parts:
            raise DataError(f"{near}: names an image {name!r}; use its file name")
        beside = near.parent / name.replace("\\", "/")
        if self.images is None and is_file(beside) and beside.suffix.lower() in EXTENSIONS:
            return Path(os.path.normpath(beside))
        plain = "/".join(parts)
        if found := self._inside.find(plain, near):
            return found
        if self._videos is not None and (frame := self._videos.find(plain, near)):
            return frame
        return self._around.find(plain, near) or (self.images or near.parent) / PurePosixPath(*parts)


class _Images:
    """Image files by name."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [path for path in paths if path.suffix.lower() in EXTENSIONS]
        self.others = [path for path in paths if path.suffix.lower() not in EXTENSIONS]

    @cached_property
    def _names(self) -> FileNames:
        return FileNames([path.as_posix() for path in self.paths])

    @cached_property
    def _stems(self) -> FileNames:
        return FileNames([path.with_suffix("").as_posix() for path in self.paths])

    def find(self, name: str, near: Path) -> Path | None:
        """Return the image with a name, with or without its extension; None if there is none."""
        rows = self._names.find(name)
        if not rows and PurePosixPath(name).suffix.lower() not in EXTENSIONS:
            rows = self._stems.find(name)
        if not rows:
            return None
        scored = sorted(((_closeness(self.paths[row], near), row) for row in rows), reverse=True)
        if len(scored) > 1 and scored[0][0] == scored[1][0]:
            fitting = ", ".join(str(self.paths[row]) for score, row in scored[:4] if score == scored[0][0])
            raise DataError(f"{near}: several images are called {name}: {fitting}; choose a folder with --images")
        return self.paths[scored[0][1]]


def _closeness(path: Path, near: Path) -> tuple[int, int, int]:
    """Rank an image by the folders that it shares with an annotation file: leading ones, any, and few others."""
    one, other = path.parent.parts, near.parent.parts
    leading = next((number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    leading = min(len(one), len(other)) if leading is None else leading
    shared = {fold(part) for part in one} & {fold(part) for part in (*other, near.stem)}
    return leading, len(shared), -len(one)


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda one: one.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    kinds = {entry.name: entry_kind(entry) for entry in visible}
    yield from (folder / name for name, kind in kinds.items() if kind == "file")
    for name, kind in kinds.items():
        if kind == "folder" and depth and not is_file(folder / name / RUN):
            yield from _walk(folder / name, depth - 1)
