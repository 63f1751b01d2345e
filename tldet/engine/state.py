"""Settings and state of a training run, and the seeds of its random numbers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tldet.errors import ConfigError
from tldet.system.device import sum_dtype, to_device

SEEDS = 2**63  # how many there are
LOGGERS = ("tensorboard", "mlflow", "wandb")
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_ON_OOM = ("error", "reduce")


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
        totals = zip(self.sums, to_device(list(self.sums.values())), strict=True)
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


def mix_seed(*numbers: int) -> int:
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


@dataclass(frozen=True)
class TrainSettings:
    """How the training loop behaves.

    Attributes:
        seed: what every random draw of the run comes from.
        accumulate: micro-batches whose gradients make one optimizer step.
        clip_norm: gradients longer than this (L2 over all parameters) are scaled down to it; None leaves them.
        ema: decay of the exponential moving average of the weights that is validated and deployed; None for none.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ... (see :func:`tldet.system.device.pick_device`).
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto`` (see :mod:`tldet.engine.precision`).
        on_oom: a training step that runs out of memory ends the run ("error") or is repeated with half the micro-batch
            and twice the accumulation ("reduce"), as are all later steps.
        compile: compile the model's parts with torch.compile where a step then is measured to take less time.
        validate_every: epochs between validations; None: at the end only. There is always one at the end.
        checkpoint_every: epochs between checkpoints; None: at the end only.
        checkpoint_minutes: a checkpoint is also written when the last one is this many minutes old; None: never.
        keep: how many of the last checkpoints stay, at least 2; ``best.pt`` stays beside them.
        best_metric: the metric by which ``best.pt`` is chosen; larger is better.
        patience: stop after this many validations in a row without a gain; None never stops early.
        min_gain: a gain in the best metric below this does not count for ``patience``.
        log_every: optimizer steps between lines of ``log.jsonl``, and between values in loggers.
        loggers: further loggers: "tensorboard", "mlflow", "wandb"; see :mod:`tldet.engine.loggers`.

    Raises:
        ConfigError: a value is out of range.
    """

    seed: int = 0
    accumulate: int = 1
    clip_norm: float | None = None
    ema: float | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    on_oom: Literal["error", "reduce"] = "error"
    compile: bool = False
    validate_every: float | None = 1.0
    checkpoint_every: float | None = 1.0
    checkpoint_minutes: float | None = 30.0
    keep: int = 2
    best_metric: str = "AP"
    patience: int | None = None
    min_gain: float = 0.0
    log_every: int = 50
    loggers: Sequence[Literal["tensorboard", "mlflow", "wandb"]] = ()

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("accumulate", 1), ("keep", 2), ("patience", 1), ("log_every", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"training.{name} must be at least {least}, not {value}")
        if self.seed >= SEEDS:
            raise ConfigError(f"training.seed must be below 2**63, not {self.seed}")
        for name in ("clip_norm", "validate_every", "checkpoint_every", "checkpoint_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"training.{name} must be above 0 (or None), not {value}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"training.ema must lie between 0 and 1 (or be None), not {self.ema}")
        if not self.min_gain >= 0:
            raise ConfigError(f"training.min_gain must be 0 or more, not {self.min_gain}")
        unknown = [name for name in self.loggers if name not in LOGGERS]
        if unknown:
            raise ConfigError(f"training.loggers: no logger is called {unknown[0]!r}; known: {', '.join(LOGGERS)}")
        for name, known in (("precision", _PRECISIONS), ("on_oom", _ON_OOM)):
            if getattr(self, name) not in known:
                raise ConfigError(f"training.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
