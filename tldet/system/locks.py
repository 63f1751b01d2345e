"""Locks of output folders: two runs never write to the same folder at the same time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tldet.errors import OutputError
from tldet.system.output import make_folder, naming, path_text, remove_leftovers

LOCK_NAME = ".lock"  # in a locked folder


@contextlib.contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock an output folder, which is created, against other processes; if nothing is written there, it is removed.

    The operating system releases the lock of a process that ends in whatever way. A process may nest locks of a folder.

    Raises:
        OutputError: another process has locked the folder, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    with naming(folder):
        new = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    path = make_folder(folder).resolve() / LOCK_NAME
    lock = FileLock(path, timeout=0, is_singleton=True)
    with naming(folder):
        try:
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"{path_text(folder)}: is in use by another process; wait until it ends or choose another folder"
            ) from None
    remove_leftovers(path.parent)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if new and is_unused(path.parent):
                path.unlink(missing_ok=True)  # before the release, else that of a process which locks it now
        lock.release()
        with contextlib.suppress(OSError):  # fails at the first folder that is not empty
            for one in new:
                one.rmdir()


def is_unused(folder: Path) -> bool:
    """Return True if a folder contains nothing but its lock."""
    return all(path.name == LOCK_NAME for path in folder.iterdir())
