"""Distributed training of one model by several processes, one per GPU, started by ``torchrun``.

A step of R processes equals a step of one process with R times the accumulation: process r takes the micro-batches
r, r + R, ..., and gradients are averaged during the backward pass (DistributedDataParallel, Li et al. 2020). Only the
main process evaluates and writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tldet.errors import ConfigError, TldetError

_T = TypeVar("_T")
_STEP_TIMEOUT = timedelta(minutes=10)  # of the slowest process in a step
_EVALUATION_TIMEOUT = timedelta(hours=6)  # the other processes wait while the main process evaluates


@dataclass(frozen=True)
class World:
    """Rank of this process and number of processes.

    Attributes:
        rank: number of this process; 0 is the main process.
        size: number of processes.
        waiting: CPU process group with a timeout of hours, to wait for the main process; None for the default group,
            whose timeout is that of the exchange of gradients.
    """

    rank: int = 0
    size: int = 1
    waiting: Any = None

    @property
    def main(self) -> bool:
        """True for the process that evaluates and writes."""
        return self.rank == 0

    def first(self, call: Callable[[], _T]) -> _T:
        """Call a function in the main process, and return its result in all processes, which wait for it.

        Raises:
            TldetError: from ``call``, in all processes; KeyboardInterrupt likewise.
        """
        if self.size == 1:
            return call()
        box: list[tuple[_T | None, BaseException | None]] = [(None, None)]
        if self.main:
            try:
                box = [(call(), None)]
            except (TldetError, KeyboardInterrupt) as error:
                box = [(None, error)]
        distributed.broadcast_object_list(box, src=0, group=self.waiting)
        value, raised = box[0]
        if raised is not None:
            raise raised
        return value  # type: ignore[return-value]

    def main_first(self, call: Callable[[], _T]) -> _T:
        """Call a function in all processes, first in the main one, so that the others find its downloads in the cache.

        Raises:
            TldetError: from ``call``; if it fails in the main process, in all processes.
        """
        found: list[_T] = []
        self.first(lambda: found.append(call()))
        return found[0] if found else call()

    def sum(self, values: Tensor) -> Tensor:
        """Sum ``values`` over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def totals(self, *numbers: int) -> list[int]:
        """Sum each number over all processes."""
        if self.size == 1:
            return list(numbers)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        totals: list[int] = self.sum(torch.tensor(numbers, dtype=torch.int64, device=device)).tolist()
        return totals

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag True if it is set in any process."""
        return [total > 0 for total in self.totals(*flags)]

    def first_error(self, error: TldetError | None) -> TldetError | None:
        """Return the error of the first process that has one, in all processes."""
        if self.size == 1:
            return error
        found: list[TldetError | None] = [None] * self.size
        distributed.all_gather_object(found, error, group=self.waiting)
        return next((one for one in found if one is not None), None)

    def wrapped(self, model: nn.Module) -> DistributedDataParallel:
        """Wrap a model to average its gradients over processes; trainable parameters must not change afterwards."""
        return DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True)


_WORLD: ContextVar[World | None] = ContextVar("world", default=None)


def current() -> World:
    """Return rank and number of the processes of :func:`process_group` or torch; rank 0 of 1 outside of a group."""
    if (world := _WORLD.get()) is not None:
        return world
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World()


@contextmanager
def process_group() -> Iterator[World]:
    """Join the processes that ``torchrun`` has started, inside the ``with`` block.

    Raises:
        ConfigError: an environment variable of torchrun is missing or invalid, or there are more processes than GPUs.
    """
    given = os.environ.get("WORLD_SIZE") or "1"
    if not given.isdecimal():
        raise ConfigError(f"WORLD_SIZE is {given!r}, not a number of processes: unset it, or start tldet with torchrun")
    size = int(given)
    if size == 1 or current().size > 1:
        yield current()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is {size} but {', '.join(missing)} is not set: start tldet with torchrun")
    _require_numbers(size)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        local_rank, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local_rank >= gpus:
            raise ConfigError(f"more processes than GPUs ({gpus}): start {gpus} or fewer")
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_STEP_TIMEOUT)
    waiting = distributed.new_group(backend="gloo", timeout=_EVALUATION_TIMEOUT)
    world = World(distributed.get_rank(), distributed.get_world_size(), waiting)
    token = _WORLD.set(world)
    try:
        yield world
    finally:
        _WORLD.reset(token)
        distributed.destroy_process_group()


def _require_numbers(size: int) -> None:
    """Check the ranks and the port that torchrun sets."""
    for name, end in (("RANK", size), ("LOCAL_RANK", size), ("MASTER_PORT", 2**16)):
        value = os.environ[name]
        if not (value.isdecimal() and int(value) < end):
            raise ConfigError(f"{name} is {value!r}, not a number below {end}: start tldet with torchrun")
