"""Loader processes leave signals to the main process, and end with it; their number fits the machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from tldet.data import loader
from tldet.data.dataset import CocoDataset
from tldet.data.loader import BatchOrder, train_batches
from tldet.data.settings import LoaderSettings
from tldet.data.workers import worker_count
from tldet.errors import ConfigError
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.system import signals


def test_workers_leave_signals_to_the_main_process(digits: Path) -> None:
    """From their first moment on: a job manager signals all processes, also those that are just starting."""
    data = CocoDataset(str(digits / "train" / "_annotations.coco.json"), str(digits / "train"))
    order = BatchOrder(data.sizes, 2)
    expected = [batch.image_ids for batch in islice(train_batches(data, order), 8)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    stream = train_batches(data, order, workers=1)

    def signalled() -> None:
        for worker in multiprocessing.active_children():
            for number in signals.STOP_SIGNALS:
                os.kill(worker.pid or 0, number)

    class Early(torch.utils.data.DataLoader):  # type: ignore[type-arg]
        def __iter__(self):  # type: ignore[no-untyped-def]
            found = super().__iter__()
            signalled()  # the worker has no Python yet
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "DataLoader", Early)
        assert next(stream).image_ids == expected[0]
    (worker,) = multiprocessing.active_children()
    signalled()
    assert [batch.image_ids for batch in islice(stream, 7)] == expected[1:]
    assert worker.is_alive()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
    stream.close()  # type: ignore[attr-defined]
    worker.join(5)
    assert not worker.is_alive()


KEPT = """
import sys
from tldet.data.dataset import CocoDataset
from tldet.data.loader import BatchOrder, train_batches

def main():
    data = CocoDataset(*sys.argv[1:])
    stream = train_batches(data, BatchOrder(data.sizes, 2), workers=2)
    next(stream)
    raise RuntimeError('a programming error, whose traceback keeps the workers')

if __name__ == '__main__':
    main()
"""


@pytest.mark.slow
def test_a_traceback_that_keeps_workers_does_not_hang(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "kept.py").write_text(KEPT)
    given = [str(digits / "train" / "_annotations.coco.json"), str(digits / "train")]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(tmp_path / "kept.py"), *given], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 1
    assert any(line.startswith("RuntimeError: a programming error") for line in done.stderr.splitlines())
    assert time.monotonic() - start < 60


@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [
        ("cpu", 64, None, 0),
        ("cuda", 1, None, 0),
        ("cuda", 2, None, 1),
        ("cuda", 6, None, 5),
        ("cuda", 64, None, 8),
        ("cuda", 16, "4", 3),
        ("cuda", 4, "8", 0),
        ("mps", 8, None, 7),
    ],
)
def test_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, processes: str | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert worker_count(device) == expected
    assert LoaderSettings().worker_count(torch.device(device)) == expected
    assert LoaderSettings(workers=3).worker_count(torch.device(device)) == 3


def test_automatic_batch_size_is_not_a_number() -> None:
    assert LoaderSettings(batch_size=3).fixed_batch_size() == 3
    with pytest.raises(ConfigError, match=r"data.loader.batch_size='auto'"):
        LoaderSettings(batch_size="auto").fixed_batch_size()


def test_all_tensors_of_a_batch_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.data_ptr())
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    target = Target(
        boxes=torch.rand(2, 4),
        labels=torch.zeros(2, dtype=torch.int64),
        ignore=torch.zeros(2, dtype=torch.bool),
        image_id=7,
        masks=torch.zeros(2, 8, 8, dtype=torch.uint8),
        labeled=torch.ones(3, dtype=torch.bool),
        spared=torch.rand(1, 4),
    )
    batch = Batch(torch.zeros(1, 3, 8, 8), [(8, 8)], [target], [(8, 8)])
    tensors = [batch.images, *(value for value in vars(target).values() if isinstance(value, torch.Tensor))]
    copy = batch.pin_memory()
    assert sorted(pinned) == sorted(tensor.data_ptr() for tensor in tensors)
    assert len(tensors) == 7
    assert (copy.image_ids, copy.sizes) == ([7], [(8, 8)])
