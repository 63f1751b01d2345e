"""Handling of signals that ask a process to stop, without losing work."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType, TracebackType
from typing import Any, TypeVar

# Ctrl-C; end of a job; warning of a job manager before that; closed terminal. Windows has the first two.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
)
_A = TypeVar("_A")
_T = TypeVar("_T")
SAME_REQUEST = 0.5  # seconds; signals closer together are one request: job managers and torchrun send several


def ignore() -> None:
    """Ignore all stop signals from now on: in a process whose parent handles them, or that is about to end."""
    for one in STOP_SIGNALS:
        signal.signal(one, signal.SIG_IGN)


@contextmanager
def held() -> Iterator[None]:
    """Handle stop signals after the ``with`` block; processes started inside never receive them.

    A job manager signals all processes of a job, even one that has just started and cannot ignore signals yet. On
    Windows, signals are not blocked.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    with _deferred(), _blocked():
        ensure_running()  # when it starts its process, it lets SIGINT and SIGTERM through again
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield


@contextmanager
def _blocked() -> Iterator[None]:
    """Block stop signals in this thread and in threads and processes that it starts inside the ``with`` block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _deferred() -> Iterator[None]:
    """Call the handlers of stop signals after the ``with`` block.

    A blocked signal is delivered to another thread that does not block it, and Python then runs its handler in the main
    thread.
    """
    arrived: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            handlers[number](number, None)


class Stopped(KeyboardInterrupt):
    """A signal has ended the block of :meth:`Interrupts.at_once`; the caller saves and exits."""


class _Arrivals:
    """Records when signals arrive.

    A signal handler runs between two operations of the main thread, which may be seconds after the signal. A separate
    thread immediately reads the byte that the interpreter writes for each signal.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: dict[int, float] = {}
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._record, name="signals", daemon=True)
        with _blocked() if hasattr(signal, "pthread_sigmask") else nullcontext():
            thread.start()

    def _record(self) -> None:
        with self._reader:
            while numbers := self._reader.recv(64):
                self._times.update(dict.fromkeys(numbers, self._clock()))

    def time(self, number: int) -> float:
        """Return when this signal arrived last; called once by its handler."""
        for _ in range(50):  # milliseconds; the thread may not have run yet
            if number in self._times:
                break
            time.sleep(0.001)
        return self._times.pop(number, self._clock())

    def close(self) -> None:
        """Stop recording."""
        signal.set_wakeup_fd(self._before)
        self._writer.close()


class Interrupts:
    """Handles stop signals inside the ``with`` block.

    The first signal sets ``requested``. Another Ctrl-C that arrives at least half a second later raises
    KeyboardInterrupt. Further signals of job managers are ignored, so that the current step can be saved. Only the main
    thread can set signal handlers; in other threads this does nothing.

    Args:
        on_first: called at the first signal. With None, every signal raises KeyboardInterrupt, like Ctrl-C by default.
        clock: returns seconds.
    """

    def __init__(self, on_first: Callable[[], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.requested = False
        self._on_first = on_first
        self._clock = clock
        self._last = -float("inf")
        self._at_once = False
        self._before: dict[signal.Signals, Any] = {}
        self._arrivals: _Arrivals | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._arrivals = _Arrivals(self._clock)
            for one in STOP_SIGNALS:
                before = signal.getsignal(one)
                if one == signal.SIGINT or before is not signal.SIG_IGN:  # nohup ignores SIGHUP
                    self._before[one] = before
                    signal.signal(one, self._handle)
        return self

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """End the ``with`` block as soon as a signal arrives.

        Raises:
            Stopped: a signal has arrived before or inside the block.
        """
        self._at_once = True
        try:
            if self.requested:
                raise Stopped
            yield
        finally:
            self._at_once = False

    def ending(self, call: Callable[[_A], _T]) -> Callable[[_A], _T]:
        """Wrap a function so that a signal ends it; see :meth:`at_once`."""

        def guarded(argument: _A) -> _T:
            with self.at_once():
                return call(argument)

        return guarded

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = self._arrivals.time(number) if self._arrivals else self._clock()
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
        if self._arrivals:
            self._arrivals.close()


@contextmanager
def stop_signals() -> Iterator[None]:
    """Handle SIGTERM, SIGUSR1 and SIGHUP like Ctrl-C inside the ``with`` block."""
    with Interrupts():
        yield
