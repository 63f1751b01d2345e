"""The ``training`` section of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tldet.errors import ConfigError

SEEDS = 2**63  # how many there are
LOGGERS = ("tensorboard", "mlflow", "wandb")
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_ON_OOM = ("error", "reduce")


@dataclass(frozen=True)
class TrainSettings:
    """How the training loop behaves.

    Attributes:
        seed: what every random draw of the run comes from.
        accumulate: micro-batches whose gradients make one optimizer step.
        clip_norm: gradients longer than this (L2 over all parameters) are scaled down to it; None leaves them.
        ema: decay of the exponential moving average of the weights that is validated and deployed; None for none.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ... (see :func:`tldet.engine.precision.pick_device`).
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
