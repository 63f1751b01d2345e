"""Several processes that train one model, one a GPU or a share of the cores, as ``torchrun`` starts them.

A step over R processes is the step of one process with R times the accumulation: process r takes the micro-batches
r, r + R, ... and the gradients are averaged while the backward pass goes on (DistributedDataParallel, Li et al. 2020).
The main process alone measures and writes.
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
STEP_TIMEOUT = timedelta(minutes=10)  # for the slowest process of a step
_PATIENCE = timedelta(hours=6)  # the others wait for the main process, which evaluates


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 is the main process.
        size: how many there are.
        waiting: group on the CPU in which processes wait for the main process for hours; None is the default group,
            whose timeout is meant for the exchange of gradients.
    """

    rank: int = 0
    size: int = 1
    waiting: Any = None

    @property
    def main(self) -> bool:
        """Whether this process measures and writes."""
        return self.rank == 0

    def first(self, call: Callable[[], _T]) -> _T:
        """What ``call`` gives in the main process, in all of them; the others wait for it.

        Raises:
            TldetError: of ``call``; in all of them too, as is KeyboardInterrupt.
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
        """What ``call`` gives in each process, in the main one before the others: it fetches and caches, they find.

        Raises:
            TldetError: of ``call``; where it fails in the main process, in all of them.
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
        """The model, its gradients averaged over the processes; it learns what it does now."""
        return DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True)


_WORLD: ContextVar[World | None] = ContextVar("world", default=None)


def current() -> World:
    """Return this process's place; a process that has not :func:`process_group` others is alone."""
    if (world := _WORLD.get()) is not None:
        return world
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World()


@contextmanager
def process_group() -> Iterator[World]:
    """Join the processes that ``torchrun`` started, for the length of the block; a process started alone stays alone.

    Raises:
        ConfigError: the variables that torchrun sets are not all there, or are no numbers.
    """
    given = os.environ.get("WORLD_SIZE") or "1"
    if not given.isdecimal():
        raise ConfigError(f"WORLD_SIZE is {given!r}, no number of processes: unset it, or start it by torchrun")
    size = int(given)
    if size == 1 or current().size > 1:
        yield current()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is {size} but {', '.join(missing)} is not set: start it by torchrun")
    _require_numbers(size)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= there:
            raise ConfigError(f"more processes than GPUs: there are {there}; start {there} or fewer")
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=STEP_TIMEOUT)
    waiting = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    world = World(distributed.get_rank(), distributed.get_world_size(), waiting)
    token = _WORLD.set(world)
    try:
        yield world
    finally:
        _WORLD.reset(token)
        distributed.destroy_process_group()


def _require_numbers(size: int) -> None:
    for name, end in (("RANK", size), ("LOCAL_RANK", size), ("MASTER_PORT", 2**16)):
        value = os.environ[name]
        if not (value.isdecimal() and int(value) < end):
            raise ConfigError(f"{name} is {value!r}, not a number below {end}: start it by torchrun")
