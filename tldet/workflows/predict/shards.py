"""Shards: parts of the inputs of a prediction run, one per process or machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tldet.errors import ConfigError

_T = TypeVar("_T")
_TEXT = re.compile(r"(\d{1,9})/(\d{1,9})")
_LAUNCHERS = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of the inputs.

    Attributes:
        number: 1 to ``count``.
        count: number of shards.
        local: local rank of the process on its machine, from 0; selects the GPU.
        origin: environment variables that define the shard; empty for ``--shard``.
    """

    number: int = 1
    count: int = 1
    local: int = 0
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[_T]) -> list[_T]:
        """Return every ``count``-th item, starting with number ``number``."""
        return list(items[self.number - 1 :: self.count])

    def path(self, path: Path) -> Path:
        """Return the name of this shard's file: ``results.3-of-16.jsonl``; ``path`` itself if there is one shard."""
        if self.count == 1:
            return path
        return path.with_name(f"{path.stem}.{self.number}-of-{self.count}{path.suffix}")


def shard_of(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """Return the shard of a process.

    Args:
        text: ``3/16``, or None for the shard that torchrun (``RANK``, ``WORLD_SIZE``) or Slurm's ``srun``
            (``SLURM_PROCID``, ``SLURM_NTASKS``) defines, else all inputs.
        environment: environment variables.

    Raises:
        ConfigError: the text or a variable is not a valid shard.
    """
    if text is not None:
        match = _TEXT.fullmatch(text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"--shard must be K/N with K from 1 to N, such as 3/16, not {text!r}")
        return Shard(int(match[1]), int(match[2]))
    for rank, size, local in _LAUNCHERS:
        if environment.get(rank) and environment.get(size) and not (rank != "RANK" and _is_batch_script(environment)):
            return _launched(rank, size, environment, environment.get(local) or "0")
    return Shard()


def _is_batch_script(environment: Mapping[str, str]) -> bool:
    """Return True in a Slurm batch script, which runs once although ``SLURM_NTASKS`` may be larger than 1."""
    return "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment


def _launched(rank: str, size: str, environment: Mapping[str, str], local: str) -> Shard:
    values = [environment[rank], environment[size]]
    if not all(value.isascii() and value.isdecimal() for value in values) or not int(values[0]) < int(values[1]):
        raise ConfigError(f"{rank}={values[0]} and {size}={values[1]} are not a shard; use --shard, or unset them")
    on_machine = int(local) if local.isascii() and local.isdecimal() else 0
    return Shard(int(values[0]) + 1, int(values[1]), on_machine, f"{rank}, {size}")
