"""Background threads that prefetch items or process them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Any, Generic, TypeVar

AHEAD = 8  # video frames decoded ahead of the detector; also frames waiting to be drawn
_A = TypeVar("_A")
_T = TypeVar("_T")


def prefetch(items: Iterable[_T], depth: int) -> Iterator[_T]:
    """Yield the items while a thread fetches the next ones; its errors are raised here."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def fetch() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # passed on and raised in the consumer
            put((False, error))

    threading.Thread(target=fetch, daemon=True).start()
    try:
        while True:
            more, item = ready.get()
            if not more:
                if item is not None:
                    raise item
                return
            yield item
    finally:
        stopped.set()


def mapped(work: Callable[[_A], _T], items: Iterable[_A], workers: int, depth: int) -> Iterator[_T]:
    """Yield ``work(item)`` of each item in order, computed in advance by a pool of threads.

    Args:
        work: the function; its errors are raised here.
        items: the items.
        workers: number of threads.
        depth: maximum number of results in progress or waiting to be consumed.
    """
    waiting: deque[Future[_T]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def grouped(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yield lists of ``size`` items; the last may be shorter."""
    left = iter(items)
    while group := list(islice(left, size)):
        yield group


class BackgroundWorker(Generic[_T]):
    """Thread that calls a function with one item after the other; its errors are raised in the caller.

    Args:
        work: the function.
        depth: number of waiting items at which :meth:`put` blocks.
    """

    def __init__(self, work: Callable[[_T], object], depth: int) -> None:
        self._work = work
        self._waiting: queue.Queue[_T | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: _T) -> None:
        """Queue an item; raise the error of an earlier one."""
        self._raise()
        self._waiting.put(item)

    def __enter__(self) -> BackgroundWorker[_T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._waiting.put(None)
            self._thread.join()
        except BaseException:  # Ctrl-C: drop waiting items, but end the thread before its output is closed
            self._dropping = True
            self._thread.join()
            raise
        if kind is None:
            self._raise()

    def _run(self) -> None:
        while True:
            try:
                item = self._waiting.get(timeout=0.1)
            except queue.Empty:
                if self._dropping:
                    return
                continue
            if item is None:
                return
            if self._error is None and not self._dropping:
                try:
                    self._work(item)
                except BaseException as error:  # raised in the caller
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
