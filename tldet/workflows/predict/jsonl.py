"""JSON Lines files of prediction runs: one line per image or frame, written during the run.

Lines of a file:

- ``{"run": {...}}``: the settings of the run; the first line.
- ``{"path", "index", "file_name", "width", "height", "detections": [...]}``: an image; ``index`` is its number among
  the inputs. A frame of a video also has ``frame``, and an image of a dataset (``--annotations``) has ``image_id``.
- ``{"path", "index", "frames"}``: end of a complete video, after its frames.
- ``{"path", "index", "error"}``: an input that could not be read.

Each line is appended with one system call, so that a killed run leaves at most one incomplete line, the last one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tldet.errors import DataError, OutputError
from tldet.system.inputs import is_file, require_file
from tldet.system.output import make_folder, naming

JSONL_VERSION = 1
WHOLE = -1  # frame number of an image


class _Line(msgspec.Struct):
    """The fields of a line that are needed to index a file."""

    path: str = ""
    index: int = 0
    frame: int | None = None
    frames: int | None = None
    error: str | None = None
    run: dict[str, Any] | None = None


_DECODER = msgspec.json.Decoder(_Line)


@dataclass
class Scan:
    """Index of a JSON Lines file.

    Attributes:
        path: the file.
        run: settings of the run.
        lines: (index, offset in the file) of each result, by path and frame number; if a result has several lines, the
            last one counts.
        done: number of frames of each completed input, by path; 1 for images.
        failed: error of each input that could not be read, by path.
        end: size of the complete lines in bytes.
        torn: size of an incomplete last line in bytes; 0 without one.
    """

    path: Path
    run: dict[str, Any] = field(default_factory=dict)
    lines: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    end: int = 0
    torn: int = 0

    def take(self, line: _Line) -> None:
        """Add a line, which starts at ``end``."""
        if line.run is not None:
            self.run = line.run
        elif line.error is not None:
            self.failed[line.path] = line.error
        elif line.frames is not None:
            self.done[line.path] = line.frames
        else:
            self.lines[line.path, WHOLE if line.frame is None else line.frame] = line.index, self.end
            if line.frame is None:
                self.done[line.path] = 1
        if line.path in self.done:
            self.failed.pop(line.path, None)

    def offsets(self) -> list[tuple[int, str, int, int]]:
        """Return (index, path, frame, offset) of each result in order.

        A video that was predicted again may have fewer frames; the surplus frames of the earlier run are left out.
        """
        return sorted(
            (index, path, frame, offset)
            for (path, frame), (index, offset) in self.lines.items()
            if frame < self.done.get(path, frame + 1)
        )


def scan_results(path: Path) -> Scan:
    """Index all results in a JSON Lines file.

    Raises:
        DataError: the file cannot be read, or was not written by ``tldet predict --jsonl``.
    """
    require_file(path, DataError)
    found = Scan(path)
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                if not text.endswith(b"\n"):
                    raise ValueError("no line end")
                found.take(_decoded(text))
            except ValueError as error:
                if file.read(1):
                    raise DataError(f"{path}: line {number} is damaged ({error}); remove this line") from None
                found.torn = len(text)
                break
            found.end += len(text)
    if found.end and found.run.get("version") != JSONL_VERSION:
        raise DataError(f"{path}: is not a JSON Lines file of tldet predict (no run settings of version 1 in line 1)")
    return found


def _decoded(text: bytes) -> _Line:
    """Decode a line.

    Raises:
        ValueError: it is not valid.
    """
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError:  # also for file names that are not UTF-8
        try:
            return msgspec.convert(json.loads(text), _Line)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ValueError(str(error)) from None


def read_lines(scans: Sequence[Scan]) -> Iterator[dict[str, Any]]:
    """Yield the results of several files in the order of the inputs; a result in several files is yielded once."""
    order = sorted((offset, number) for number, one in enumerate(scans) for offset in one.offsets())
    files = [one.path.open("rb") for one in scans]
    last: tuple[str, int] | None = None
    try:
        for (_, path, frame, offset), number in order:
            if (path, frame) != last:
                files[number].seek(offset)
                yield json.loads(files[number].readline())
            last = path, frame
    finally:
        for file in files:
            file.close()


class JsonlWriter:
    """Writer that appends to a JSON Lines file; only one process at a time may write to a file.

    Args:
        path: the file. Nothing is changed in it before :meth:`begin`.
        resume: resume an existing file; otherwise it is replaced.

    Attributes:
        found: content of the resumed file; empty for a new one.

    Raises:
        DataError: the file cannot be written or is in use, or the resumed file was not written by ``tldet predict``.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        from filelock import FileLock, Timeout

        self.path = path
        make_folder(path.parent)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        with naming(path):
            try:
                self._lock.acquire()
            except Timeout:
                raise OutputError(f"{path}: is being written by another process; wait until it ends") from None
            try:
                self.found = scan_results(path) if resume and is_file(path) else Scan(path)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            except BaseException:
                self._lock.release()
                raise

    def begin(self, run: Mapping[str, Any]) -> None:
        """Remove an incomplete last line, and append the settings of the run if they are not those in the file."""
        with naming(self.path):
            os.ftruncate(self._file, self.found.end)
        if run != self.found.run:
            self.append({"run": run})

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            OutputError: it cannot be written.
        """
        content = encoded(line)
        with naming(self.path):
            written = os.write(self._file, content)
            while written < len(content):  # a full disk, or a signal
                written += os.write(self._file, content[written:])

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield all results in the order of the inputs."""
        return read_lines([scan_results(self.path)])

    def close(self) -> None:
        """Flush the file to disk, remove it if it is empty, and let other processes write to it."""
        with naming(self.path):
            try:
                if os.fstat(self._file).st_size:
                    os.fsync(self._file)
                elif is_file(self.path):
                    self.path.unlink()
            finally:
                os.close(self._file)
                self._lock.release()


def encoded(line: Mapping[str, Any]) -> bytes:
    """Return the bytes of a line."""
    return (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
