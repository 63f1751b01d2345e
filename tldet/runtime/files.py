"""Reading and writing of files named by the user. Only regular files are read; anything else is a one-line error.

Reading a named pipe would block, and a device such as /dev/zero has no end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

from .errors import OutputError, TldetError

PathName = str | PathLike[str]
NOT_FILES: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a pipe"),
    (stat.S_ISSOCK, "is a socket"),
)


def require_file(path: PathName, error: type[TldetError], name: str | None = None) -> os.stat_result:
    """Check that a path is a regular file, and return its ``stat`` result.

    Args:
        path: the file.
        error: the kind of error to raise.
        name: name of the file in messages; None takes its path.

    Raises:
        TldetError: an ``error``: the file is missing, not a regular file, or its path is not valid.
    """
    name = os.fspath(path) if name is None else name
    try:
        status = os.stat(path)  # noqa: PTH116  (also takes the name of a descriptor)
    except (FileNotFoundError, NotADirectoryError):
        broken = os.path.islink(path)  # noqa: PTH114
        raise error(f"{name}: {'is a link to a missing file' if broken else 'no such file'}") from None
    except OSError as problem:
        raise error(f"{name}: cannot be read: {problem.strerror}") from None
    except ValueError:
        raise error(f"{name!r}: is not a valid path: it contains a null character") from None
    if not stat.S_ISREG(status.st_mode):
        what = next((text for test, text in NOT_FILES if test(status.st_mode)), "is a device")
        raise error(f"{name}: {what}, not a regular file")
    return status


def read_file(path: PathName, error: type[TldetError], name: str | None = None) -> bytes:
    """Read a regular file.

    Args:
        path: the file.
        error: the kind of error to raise.
        name: name of the file in messages; None takes its path.

    Raises:
        TldetError: an ``error``: the file cannot be read.
    """
    name = os.fspath(path) if name is None else name
    status = require_file(path, error, name)
    try:
        return Path(path).read_bytes()
    except OSError as problem:
        raise error(f"{name}: cannot be read: {problem.strerror}") from None
    except MemoryError:
        raise error(f"{name}: does not fit into memory ({status.st_size / 2**30:.1f} GiB)") from None


def is_file(path: PathName) -> bool:
    """Return True for a regular file; False for any other path, including an invalid one."""
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises OSError if the name is too long)


def write_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it; create its folder if necessary.

    Symbolic links are followed; devices and pipes are written directly.

    Raises:
        OutputError: the file cannot be written.
    """
    with _temporary(path) as new:
        new.write_bytes(content)
        if new != path:
            new.replace(os.path.realpath(path))


def check_writable(path: Path) -> None:
    """Check that a file can be written before its content is computed; create its folder.

    Raises:
        OutputError: the file cannot be written.
    """
    with _temporary(path) as new:
        if new != path:
            new.write_bytes(b"")


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to a file; remove it afterwards if it still exists.

    For a device or a pipe, yield its path.
    """
    new = None
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            yield path
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name[-64:]}.{os.getpid()}.tmp")
        yield new
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{str(path)!r}: cannot be written ({reason}); choose another path") from None
    finally:
        if new is not None:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
