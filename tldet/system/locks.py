"""Locks of output folders: two runs never write to the same folder at the same time."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.errors import OutputError
from tldet.system.output import TEMPORARY, make_folder, naming, path_text, remove_leftovers

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK_NAME = ".lock"  # in a locked folder
_GRACE = 0.2  # seconds in which a lock file is opened again, if it was removed before it was locked


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Create an output folder and lock it against other processes; remove it if nothing is written there.

    The operating system releases the lock when the process ends for any reason. Locks of a folder can be nested within
    one thread.

    Raises:
        OutputError: another process has locked the folder, or it cannot be written.
    """
    with naming(folder):
        new = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
        path, lock = _acquire(folder)
    for one in [at for at, _ in _walk(path.parent)] if is_unused(path.parent) else [path.parent]:
        remove_leftovers(one)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if new and is_unused(path.parent):
                path.unlink(missing_ok=True)  # before the release: afterwards it may be the lock of another process
        lock.release()
        with contextlib.suppress(OSError):  # fails at the first folder that is not empty
            for one in new:
                one.rmdir()


def in_use(folder: Path) -> bool:
    """Return True if a process has locked a folder, or if this cannot be determined."""
    from filelock import FileLock, Timeout

    path = folder / LOCK_NAME
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # of another user, or on a file system without locks
        return True
    lock.release()
    return False


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which is removed afterwards; wait while another process holds it.

    Raises:
        OutputError: the file cannot be written.
    """
    from filelock import FileLock

    while True:
        lock = FileLock(path)
        with naming(path):
            lock.acquire()
        if _is_current(lock, path):
            break
        lock.release()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # before the release, as in locked
        lock.release()


def _acquire(folder: str | Path) -> tuple[Path, BaseFileLock]:
    """Lock the file that has the name of the lock at the time when it is locked; return its path and the lock.

    Raises:
        OutputError: another process has locked the folder, or it cannot be created.
    """
    from filelock import FileLock, Timeout

    while True:
        path = make_folder(folder).resolve() / LOCK_NAME
        lock = FileLock(path, timeout=_GRACE, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"{path_text(folder)}: is in use by another process; wait until it ends or choose another folder"
            ) from None
        if _is_current(lock, path):
            return path, lock
        lock.release()


def _is_current(lock: BaseFileLock, path: Path) -> bool:
    """Return False if the locked file was removed or replaced between opening and locking."""
    handle = lock._context.lock_file_fd
    try:
        return handle is None or os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def is_unused(folder: Path) -> bool:
    """Return True if a folder and those below it contain nothing but locks and temporary files of killed processes.

    A folder below it that another process has locked is used; so is a link, and a folder that cannot be read.
    """
    try:
        for at, names in _walk(folder):
            if any(name != LOCK_NAME and not fnmatch.fnmatchcase(name, TEMPORARY) for name in names):
                return False
            if at != folder and in_use(at):
                return False
    except OSError:
        return False
    return True


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those below it, each with the names of its files and links.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for at, folders, files in os.walk(folder, onerror=fail):
        yield Path(at), [*files, *(name for name in folders if Path(at, name).is_symlink())]
