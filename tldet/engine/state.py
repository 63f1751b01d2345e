"""Settings, state and result of a training run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tldet.errors import ConfigError
from tldet.system.determinism import SEEDS
from tldet.system.device import sum_dtype, to_device

LOGGERS = ("tensorboard", "mlflow", "wandb")
_PRECISIONS = ("auto", "fp32", "bf16", "fp16")
_ON_OOM = ("error", "reduce")
_UNDEFINED = -1.0  # COCO's value of a metric without ground truth


@dataclass
class RunningMeans:
    """Sums of values since the last line of the log; saved in checkpoints, so that resuming does not change means."""

    count: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the scalars of one step; they stay on their device, so that the host does not wait."""
        self.count += 1
        for name, value in values.items():
            self.sums[name] = value.to(sum_dtype(value.device)) + self.sums.get(name, 0.0)

    def take(self) -> dict[str, float]:
        """Return the means and reset the sums."""
        totals = zip(self.sums, to_device(list(self.sums.values())), strict=True)
        means = {name: float(total) / self.count for name, total in totals}
        self.count, self.sums = 0, {}
        return means


@dataclass
class TrainState:
    """Counters of a run.

    Attributes:
        step: number of optimizer steps taken.
        total: number of optimizer steps of the run; None while a budget of minutes is measured.
        seconds: training time so far, including earlier processes.
        best: best value of the best metric, reached at ``best_step``.
        reference: value that a validation must exceed by ``min_gain``; ``stale`` validations in a row did not.
        lr: highest learning rate of the last step.
        metrics: metrics of the last validation, after step ``validated_step``.
        window: sums since the last line of the log.
        validation_pending: the validation after the last step is still to be done, because a signal or an error ended
            it, or because the run has no steps.
        comparable_from: first step whose validation is comparable to the current ones: earlier ones used other data or
            another metric.
        split: number of parts of each micro-batch; above 1 after memory has run out.
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
    window: RunningMeans = field(default_factory=RunningMeans)
    validation_pending: bool = False
    validated_step: int | None = None
    comparable_from: int = 0
    split: int = 1

    def record_metric(self, value: float | None, min_gain: float) -> bool:
        """Record the best metric of a validation for early stopping; return True if it is the best so far.

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

    def forget_validations(self) -> None:
        """Discard the best value: later validations are not comparable to earlier ones."""
        self.best = self.best_step = self.reference = None
        self.stale = 0
        self.comparable_from = self.step if self.validation_pending else self.step + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain containers and tensors, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TrainState:
        """Create a state from the result of :meth:`to_dict`; further keys are ignored.

        Raises:
            KeyError: a key is missing.
        """
        known = {one.name: state[one.name] for one in fields(cls)}
        return cls(**{**known, "metrics": dict(known["metrics"]), "window": RunningMeans(**known["window"])})


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
        comparable_from: first step whose validation is comparable to the last one, see :class:`TrainState`.
    """

    step: int
    best: float | None
    best_step: int | None
    metrics: dict[str, float]
    seconds: float
    reason: str
    checkpoint: Path | None
    best_checkpoint: Path | None
    comparable_from: int = 0

    @classmethod
    def of(cls, state: TrainState, reason: str, last: Path | None, best: Path) -> TrainResult:
        """Create the result from the last state, the last checkpoint and the path of ``best.pt``, if it exists."""
        found = best if best.exists() else None
        values = (state.step, state.best, state.best_step, state.metrics, state.seconds)
        return cls(*values, reason, last, found, state.comparable_from)


@dataclass(frozen=True)
class TrainSettings:
    """The ``training`` section of a config.

    Attributes:
        seed: seed of all random numbers of the run.
        accumulate: number of micro-batches per optimizer step.
        clip_norm: largest L2 norm of the gradients of all parameters; None does not clip.
        ema: decay of the exponential moving average (EMA) of the weights; the EMA weights are validated and saved as
            ``best.pt``. None for no EMA.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ... (see :func:`tldet.system.device.pick_device`).
        precision: ``fp32``, ``bf16``, ``fp16`` or ``auto`` (see :mod:`tldet.engine.precision`).
        on_oom: when a training step runs out of memory, end the run ("error"), or halve the micro-batch and double the
            accumulation for this step and all later ones ("reduce").
        compile: compile the parts of the model with ``torch.compile`` if a measurement shows a speedup.
        validate_every: epochs between validations; None validates only at the end. The last step is always validated.
        checkpoint_every: epochs between checkpoints; None saves only at the end.
        checkpoint_minutes: also save a checkpoint when the last one is older than this; None for no limit.
        max_keep_ckpts: number of checkpoints to keep besides ``best.pt``, at least 2.
        best_metric: metric that selects ``best.pt``; larger is better.
        patience: stop after this many validations in a row without a gain; None never stops early.
        min_gain: smallest gain of the best metric that counts for ``patience``.
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
    max_keep_ckpts: int = 2
    best_metric: str = "AP"
    patience: int | None = None
    min_gain: float = 0.0
    log_every: int = 50
    loggers: Sequence[Literal["tensorboard", "mlflow", "wandb"]] = ()

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("accumulate", 1), ("max_keep_ckpts", 2), ("patience", 1), ("log_every", 1)):
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
            raise ConfigError(f"training.ema must be between 0 and 1 (or None), not {self.ema}")
        if not self.min_gain >= 0:
            raise ConfigError(f"training.min_gain must be 0 or more, not {self.min_gain}")
        self._check_choices()

    def best_of(self, metrics: Mapping[str, float]) -> float | None:
        """Return the metric that selects ``best.pt``; None if there was nothing to evaluate.

        Raises:
            ConfigError: there is no such metric.
        """
        if self.best_metric not in metrics:
            raise ConfigError(f"training.best_metric {self.best_metric!r} is none of {', '.join(metrics)}")
        value = metrics[self.best_metric]
        return None if value == _UNDEFINED else value

    def _check_choices(self) -> None:
        unknown = [name for name in self.loggers if name not in LOGGERS]
        if unknown:
            raise ConfigError(f"training.loggers: unknown logger {unknown[0]!r}; available: {', '.join(LOGGERS)}")
        for name, known in (("precision", _PRECISIONS), ("on_oom", _ON_OOM)):
            if getattr(self, name) not in known:
                raise ConfigError(f"training.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
