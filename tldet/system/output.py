"""Output files and folders.

A file is written under a temporary name in its folder and then renamed: a reader finds the old file or the new one,
never a part, and a write that fails or is killed leaves the old file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from tldet.errors import OutputError

TEMPORARY = ".tldet-*.tmp"  # names of files that are being written, or were when their process was killed
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # written directly
RETRIED: tuple[type[OSError], ...] = (PermissionError,) if os.name == "nt" else ()  # Windows: the file is being read
RETRY_SECONDS = 10.0


class Replacement:
    """New file that replaces ``path`` once it is complete.

    The new file has the permissions of the one it replaces, else those of any new file (umask). Symbolic links are
    followed; devices and pipes are written directly. As a context manager it commits, or discards after an error.

    Args:
        path: the file; its folder is created.
        sync: flush the content to the disk before renaming, for a file that must survive a power failure.

    Attributes:
        name: file to write.

    Raises:
        OSError: the file cannot be created. So does :meth:`commit`.
        ValueError: the path contains a NUL character.
    """

    def __init__(self, path: str | Path, *, sync: bool = True) -> None:
        self.target = Path(os.path.realpath(path))
        self.sync = sync
        mode = _mode(self.target)
        self.direct = str(path).startswith(_STREAMS) or (mode is not None and not stat.S_ISREG(mode))
        self.name = self.target if not self.direct else Path(path)
        if not self.direct:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self.name = _new_file(self.target)
            if mode is not None:
                with contextlib.suppress(OSError):
                    self.name.chmod(stat.S_IMODE(mode))

    def commit(self) -> None:
        """Rename the new file to ``path``."""
        if self.direct:
            return
        try:
            if self.sync:
                _flush(self.name, os.O_WRONLY)
            _replace(self.name, self.target)
        except BaseException:
            self.discard()
            raise
        if self.sync and os.name == "posix":
            with contextlib.suppress(OSError):  # some network file systems cannot flush folders
                _flush(self.target.parent, os.O_RDONLY)

    def discard(self) -> None:
        """Remove the new file; ``path`` stays as it was."""
        if not self.direct:
            with contextlib.suppress(OSError):
                self.name.unlink(missing_ok=True)

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
        else:
            self.discard()


def _mode(path: Path) -> int | None:
    """Return the mode of an existing file that may be written; None if there is none."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return mode


def _new_file(target: Path) -> Path:
    """Create an empty file of a new name beside ``target``; the system applies the umask."""
    while True:
        path = target.parent / f".tldet-{secrets.token_hex(4)}{target.suffix[:16]}.tmp"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return path


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(temporary: Path, path: Path) -> None:
    deadline, pause = time.monotonic() + RETRY_SECONDS, 0.01
    while True:
        try:
            temporary.replace(path)
            return
        except RETRIED:
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


@contextlib.contextmanager
def replacing(path: str | Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a :class:`Replacement` for writing; it replaces ``path`` at the end of the block.

    Raises:
        OutputError: the file cannot be written; ``path`` stays as it was, as after any error in the block.
    """
    with naming(path), Replacement(path, sync=sync) as new, new.name.open("ab" if new.direct else "w+b") as file:
        yield file


def write_bytes(path: str | Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file as a whole; see :func:`replacing`."""
    with replacing(path, sync=sync) as file:
        file.write(content)


def write_text(path: str | Path, text: str, *, sync: bool = False) -> None:
    """Write a UTF-8 file as a whole; a lone surrogate becomes its escape. See :func:`replacing`."""
    write_bytes(path, text.encode(errors="backslashreplace"), sync=sync)


def write_json(path: str | Path, content: object, *, indent: int | None = None) -> None:
    """Write ``content`` as JSON, on one line without ``indent``; see :func:`replacing`."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n", sync=True)


def make_folder(folder: str | Path) -> Path:
    """Create a folder and those above it.

    Raises:
        OutputError: it cannot be created.
    """
    with naming(folder, "created"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def remove_leftovers(folder: Path, suffix: str = "") -> None:
    """Remove the temporary files of killed processes from a folder that no other process writes to.

    Args:
        folder: the folder.
        suffix: of the files that were to be written; any by default.
    """
    for path in folder.glob(TEMPORARY):
        if path.stem.endswith(suffix):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: str | Path, done: str = "written") -> Iterator[None]:
    """Convert OSErrors of writing a file to an OutputError that names the file."""
    try:
        yield
    except OSError as error:
        raise _error(path, error.strerror or str(error), error.errno, done) from None
    except ValueError as error:
        if "null" not in str(error):
            raise
        raise _error(path, "its name contains a NUL character", None, done) from None


def _error(path: str | Path, reason: str, number: int | None, done: str) -> OutputError:
    full = number in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some disk space; earlier files are unchanged" if full else "choose another path"
    return OutputError(f"{path_text(path)}: cannot be {done} ({reason}); {advice}")


def path_text(path: str | Path) -> str:
    """Return a path for a message, on one line."""
    return str(path) if str(path).isprintable() else repr(str(path))
