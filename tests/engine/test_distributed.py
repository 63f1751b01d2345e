"""Communication between processes, tested in one process with two equal ranks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import distributed, nn

from tests import forked
from tldet.engine.distributed import World, current, process_group
from tldet.errors import ConfigError, DataError

from .conftest import DieAt

WAITING = Path(__file__).with_name("waiting_run.py")


class Both(nn.Module):
    """Stands for DistributedDataParallel over two equal processes, whose mean gradient is each one's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Any:
        return self.model(batch)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        yield


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of each vector that is summed over processes."""
    seen: list[int] = []

    def all_reduce(values: torch.Tensor) -> None:
        seen.append(values.numel())
        values.mul_(2)

    monkeypatch.setattr(distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "get_backend", lambda *_: "gloo")
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda *_, **__: None)
    monkeypatch.setattr(distributed, "all_gather_object", lambda found, error, group: found.__setitem__(0, error))
    monkeypatch.setattr(World, "wrapped", lambda self, model: Both(model))
    return seen


def test_one_vector_per_step(toy: ModuleType, tmp_path: Path, vectors: list[int]) -> None:
    alone = toy.build(tmp_path / "alone", steps=6)
    alone.run()
    assert vectors == []
    both = toy.build(tmp_path / "both", steps=6, world=World(0, 2))
    both.run()
    what = "the first step's number of images; loss, norm, a count and four notes; at the end, if a signal has come"
    assert vectors == [2, *[7] * 6, 1], what
    for a, b in zip(alone.model.parameters(), both.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_stop_of_one_process_stops_all(toy: ModuleType, tmp_path: Path, vectors: list[int]) -> None:
    class Stops(DieAt):
        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
            if batch_idx == 2:
                runner.stop("enough")

    result = toy.build(tmp_path, steps=20, world=World(0, 2), hooks=[Stops()]).run()
    assert (result.reason, result.step) == ("enough", 4)


def test_an_image_that_one_cannot_read_ends_all_after_the_step_before(
    toy: ModuleType, tmp_path: Path, vectors: list[int]
) -> None:
    def broken(start: int) -> Iterator[Any]:
        for number, batch in enumerate(toy.toy_batches(start), start):
            if number == 15:
                raise DataError("p.jpg: is an empty file")
            yield batch

    with pytest.raises(DataError, match=r"^p.jpg: is an empty file; the run is saved after step 7"):
        toy.build(tmp_path, batches=broken, world=World(0, 2)).run()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["x", "-1", "", "70000"])
def test_variables_of_torchrun_must_be_numbers(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    given = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for key, one in {**given, name: value}.items():
        monkeypatch.setenv(key, one)
    with pytest.raises(ConfigError, match=f"{name} is '{value}', not a number below .*torchrun"), process_group():
        pass


def test_waiting_and_computing_use_separate_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, float]] = []
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "1",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)

    def new_group(backend: str, timeout: Any) -> str:
        made.append((backend, timeout.total_seconds()))
        return "waiting"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr(distributed, "init_process_group", new_group)
    monkeypatch.setattr(distributed, "new_group", new_group)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    with process_group() as world:
        assert world == current() == World(1, 2, "waiting")
        with process_group() as again:
            assert again is world
    assert current() == World()
    (nccl, short), (gloo, long) = made
    assert (nccl, gloo) == ("nccl", "gloo")
    assert short <= 900 < 3600 <= long


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")
def test_processes_wait_longer_than_a_step_may_take(tmp_path: Path) -> None:
    """Two processes with real gloo groups; NCCL needs GPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        given = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
        env = {**os.environ, **given, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started.append(forked.start([WAITING, "3"], tmp_path / str(rank), env=env))
    for process in started:
        process.join(60)
    assert [(tmp_path / name / "stdout").read_text() for name in "01"] == ["2 evaluated 2\n"] * 2
    assert [process.exitcode for process in started] == [0, 0]
