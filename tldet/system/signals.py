"""The signals that ask a process to stop: stopping without losing work, or leaving them to a parent."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

# Ctrl-C; a job manager's end of the job; its warning before that; a closed terminal. Windows has the first two.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)
_A = TypeVar("_A")
_T = TypeVar("_T")
SAME_REQUEST = 0.5  # seconds; signals closer together are one request: job managers and torchrun send several


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


class Stopped(KeyboardInterrupt):
    """A signal ended the block that :meth:`Interrupts.at_once` guards; the caller saves and ends."""


class Interrupts:
    """Answer the signals that ask to stop, inside the ``with`` block.

    The first signal sets ``requested``. Another Ctrl-C, half a second or more later, raises KeyboardInterrupt; further
    signals of job managers do nothing, because they are no reason to give up the step that is being saved.
    Python lets only the main thread set signal handlers; in another thread this does nothing.

    Args:
        on_first: called at the first signal. None: every signal raises KeyboardInterrupt, as Ctrl-C does by default.
        clock: seconds.
    """

    def __init__(self, on_first: Callable[[], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.requested = False
        self._on_first = on_first
        self._clock = clock
        self._last = -float("inf")
        self._at_once = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for one in STOP_SIGNALS:
                before = signal.getsignal(one)
                if one == signal.SIGINT or before is not signal.SIG_IGN:  # nohup ignores SIGHUP
                    self._before[one] = before
                    signal.signal(one, self._handle)
        return self

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block.

        Raises:
            Stopped: a signal has arrived, or arrives inside the block.
        """
        self._at_once = True
        try:
            if self.requested:
                raise Stopped
            yield
        finally:
            self._at_once = False

    def ending(self, call: Callable[[_A], _T]) -> Callable[[_A], _T]:
        """Return ``call`` in a form that a signal ends; see :meth:`at_once`."""

        def guarded(argument: _A) -> _T:
            with self.at_once():
                return call(argument)

        return guarded

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = self._clock()
        if now - self._last < SAME_REQUEST:
            return
        self._last = now
        again, self.requested = self.requested, True
        if self._on_first is None:
            raise KeyboardInterrupt
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt("stopped at once; steps after the last checkpoint are lost")
        if not again:
            with suppress(OSError, RuntimeError):  # the terminal may be gone; the signal may have come while printing
                self._on_first()
        if self._at_once:
            self._at_once = False
            raise Stopped

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for one, handler in self._before.items():
            outer = getattr(handler, "__self__", None)
            if isinstance(outer, Interrupts):
                outer._last = max(outer._last, self._last)
            signal.signal(one, signal.SIG_DFL if handler is None else handler)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Treat SIGTERM, SIGUSR1 and SIGHUP like Ctrl-C, for a whole command."""
    with Interrupts():
        yield
