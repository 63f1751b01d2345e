"""The signals that ask a process to stop, and processes that leave them to their parent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

# Ctrl-C; a job manager's end of the job; its warning before that; a closed terminal. Windows has the first two.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)


def ignore() -> None:
    """Ignore all of them from now on: for a process whose parent answers them, or that is about to end."""
    for one in STOP_SIGNALS:
        signal.signal(one, signal.SIG_IGN)


@contextmanager
def held() -> Iterator[None]:
    """Hold them back in this thread until the end of the block; processes started inside never receive them.

    A job manager signals every process of a job, also one that has just started and cannot ignore signals yet.
    Nothing is held back on Windows.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        ensure_running()  # when it starts its process, it lets SIGINT and SIGTERM through again
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
