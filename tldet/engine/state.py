"""What a run must remember besides model and optimizer, and how its random numbers are seeded."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tldet.device import fetch, sum_dtype


@dataclass
class Window:
    """Sums since the last line of the log; part of the state, so that a resumed mean is the uninterrupted one."""

    count: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in scalars of one step; they stay on their device, so nothing waits."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = value.to(sum_dtype(value.device)) + self.sums.get(name, 0.0)

    def take(self) -> dict[str, float]:
        """The means, and start anew."""
        totals = zip(self.sums, fetch(list(self.sums.values())), strict=True)
        means = {name: float(total) / self.count for name, total in totals}
        self.count, self.sums = 0, {}
        return means


@dataclass
class TrainState:
    """The counters of a run.

    Attributes:
        step: optimizer steps taken.
        total: optimizer steps of the whole run; None while a budget of minutes is still being measured.
        seconds: training time so far, that of earlier processes included.
        best: best value of the best metric, reached at ``best_step``.
        reference: the value a validation must beat by ``min_gain``; ``stale`` validations in a row did not.
        lr: highest learning rate of the last step.
        metrics: metrics of the last validation, which followed step ``measured``.
        window: sums since the last line of the log.
        unmeasured: the validation after the last step is still to be done: a signal ended it, an image could not be
            read, or no step is to be taken.
        split: number of parts into which each micro-batch is divided since memory ran out.
    """

    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    reference: float | None = None
    stale: int = 0
    lr: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    window: Window = field(default_factory=Window)
    unmeasured: bool = False
    measured: int | None = None
    split: int = 1

    def take_in(self, value: float | None, min_gain: float) -> bool:
        """Count a validation for early stopping; return True if it is the best so far.

        NaN is never the best. None (nothing to evaluate) is not counted.
        """
        if value is None:
            return False
        if value != value:
            self.stale += 1
            return False
        if self.reference is None or value > self.reference + min_gain:
            self.reference, self.stale = value, 0
        else:
            self.stale += 1
        if self.best is not None and not value > self.best:
            return False
        self.best, self.best_step = value, self.step
        return True

    def to_dict(self) -> dict[str, Any]:
        """Plain containers and tensors, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TrainState:
        """The state :meth:`to_dict` gave; further keys are left alone."""
        state = {"unmeasured": False, "measured": None, "split": 1, **state}  # missing in older checkpoints
        known = {one.name: state[one.name] for one in fields(cls)}
        return cls(**{**known, "metrics": dict(known["metrics"]), "window": Window(**known["window"])})


@dataclass(frozen=True)
class TrainResult:
    """Result of a run.

    Attributes:
        step: total number of optimizer steps.
        best: best value of the best metric, reached at ``best_step``; None if no validation gave a value.
        lr: highest learning rate of the last step.
        metrics: metrics of the last validation; those of ``best_checkpoint`` are stored in its file.
        seconds: training time without evaluation and checkpoints.
        reason: reason for the end: ``finished``, ``no gain`` or the reason passed to :meth:`Trainer.stop`.
        checkpoint: the last checkpoint (None only if files were removed).
        best_checkpoint: ``best.pt`` with the weights of ``best_step``, or the last weights if no validation gave a
            value; None without validation.
    """

    step: int
    best: float | None
    best_step: int | None
    metrics: dict[str, float]
    seconds: float
    reason: str
    checkpoint: Path | None
    best_checkpoint: Path | None

    @classmethod
    def of(cls, state: TrainState, reason: str, last: Path | None, best: Path) -> TrainResult:
        """From the last state and the files ``last`` and ``best`` (which may not exist)."""
        found = best if best.exists() else None
        return cls(state.step, state.best, state.best_step, state.metrics, state.seconds, reason, last, found)


def mix(*numbers: int) -> int:
    """One number in 0..2**63 - 1 from several, without patterns: a seed for (seed, step, ...)."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_all(seed: int) -> None:
    """Seed torch's (every device), numpy's and python's global generators, from which libraries draw."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def capture_rng() -> dict[str, Any]:
    """The state of every global generator, as tensors and plain containers."""
    name, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, words, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(words), next_gauss],
    }


def restore_rng(state: Mapping[str, Any]) -> None:
    """Set every global generator as :func:`capture_rng` found it (CUDA's where there are as many devices)."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, words, next_gauss = state["python"]
    random.setstate((version, tuple(words), next_gauss))


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """On CPU, only deterministic algorithms inside the ``with`` block; without it resuming is not bit-identical.

    On CUDA several operations of detection have no deterministic version, so nothing is changed there.
    """
    if device.type != "cpu":
        yield
        return
    mode = torch.get_deterministic_debug_mode()
    aids: Any = torch.utils.deterministic
    fill = aids.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    aids.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        aids.fill_uninitialized_memory = fill
