"""Worker processes of the loader: their number, start and end."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.utils.data import DataLoader

from tldet.plugins import search_folders
from tldet.system import signals

MOST_WORKERS = 8


def worker_count(device_type: str) -> int:
    """Choose the number of loader processes of one training process.

    On a CPU 0, because the model uses all cores. With a GPU, the process's share of the cores minus one, at most
    :data:`MOST_WORKERS`.
    """
    if device_type == "cpu":
        return 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # set by torchrun
    return max(0, min(MOST_WORKERS, usable // processes - 1))


def set_up_worker(begun: Any, number: int) -> None:
    """Set up a worker process: it ignores signals, which the parent handles, and uses one thread."""
    import cv2

    signals.ignore()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    begun[number] = True


class Workers:
    """Context of the worker processes of a loader, which ignore signals and end with the ``with`` block.

    Args:
        loader: the loader.
        begun: True for each worker that has started.
    """

    def __init__(self, loader: DataLoader[Any], begun: Sequence[bool]) -> None:
        self._loader, self._begun, self._stream = loader, begun, cast(Any, None)

    def __enter__(self) -> Any:
        atexit.register(self.stop)  # a stored traceback (interactive sessions) keeps the block open
        try:
            with signals.held(), search_folders():
                self._stream = iter(self._loader)
        except BaseException:  # a signal that was held back
            self.stop()
            raise
        return self._stream

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the workers, which ignore the SIGTERM that torch sends to workers that hang or are starting."""
        atexit.unregister(self.stop)
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if stream._worker_pids_set:  # else torch reports killed workers as an error
            torch._C._remove_worker_pids(id(stream))
            stream._worker_pids_set = False
        for worker, begun in zip(stream._workers, self._begun, strict=False):
            if not begun:  # such a worker holds no lock yet
                worker.kill()
        stream._shutdown_workers()
        for worker in stream._workers:
            worker.kill()
