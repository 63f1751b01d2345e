"""Several processes that train one model, one a GPU or a share of the cores, as ``torchrun`` starts them.

A step over R processes is the step of one process with R times the accumulation: process r takes the micro-batches
r, r + R, ... and the gradients are averaged while the backward pass goes on (DistributedDataParallel, Li et al. 2020).
The main process alone measures and writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tldet.errors import ConfigError

T = TypeVar("T")
PATIENCE = timedelta(hours=6)  # the others wait for the main process, which measures


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 is the main process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process measures and writes."""
        return self.rank == 0

    def first(self, call: Callable[[], T]) -> T:
        """What ``call`` gives in the main process, in all of them; the others wait for it."""
        if self.size == 1:
            return call()
        box: list[T | None] = [call() if self.main else None]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes through the block before the others do: it fetches and caches, they find."""
        if self.size > 1 and not self.main:
            distributed.barrier()
        yield
        if self.size > 1 and self.main:
            distributed.barrier()

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.size > 1:
            values = values / self.size
            distributed.all_reduce(values)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag whether some process has it."""
        if self.size == 1:
            return list(flags)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        votes = torch.tensor(flags, dtype=torch.int32, device=device)
        distributed.all_reduce(votes)
        return [vote > 0 for vote in votes.tolist()]

    def wrapped(self, model: nn.Module) -> DistributedDataParallel:
        """The model, its gradients averaged over the processes; it learns what it does now."""
        return DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True)


def current() -> World:
    """This process's place; alone where no processes were :func:`joined`."""
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that ``torchrun`` started, for the length of the block; a process started alone stays alone.

    Raises:
        ConfigError: the variables that torchrun sets are not all there.
    """
    size = int(os.environ.get("WORLD_SIZE") or 1)
    if size == 1 or current().size > 1:
        yield current()
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(f"WORLD_SIZE is {size} but {', '.join(missing)} is not set: start it by torchrun")
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield current()
    finally:
        distributed.destroy_process_group()
