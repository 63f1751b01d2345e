"""Length of training, in epochs, steps or minutes, and the learning-rate factor of every step.

The factor is a pure function of ``(step, total steps, steps per epoch)``: there is no scheduler state to save, and a
resumed run cannot differ from an uninterrupted one. A budget of minutes is converted to a number of steps once. The
budget includes loading data, forward pass, backward pass and optimizer step, but not start-up, evaluation and writing
checkpoints. The number of steps is saved in the checkpoint, so that a resumed run ends at the same step.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from torch.optim import Optimizer

from tldet.engine.progress import duration
from tldet.engine.state import TrainState
from tldet.errors import ConfigError
from tldet.text import counted

_POLICIES = ("multistep", "cosine", "constant")
log = logging.getLogger(__name__)
DROPPED = 3  # first steps of a process, which are slow (allocation, caches, autotuning)
MEASURED_STEPS = 8  # least number of measured steps
_LONG_ENOUGH = 30.0  # seconds after which slow steps are measured no further
_LEAST_SHARE = 0.15  # least measured fraction of the budget; eight steps of 10 ms alone would be too noisy


@dataclass(frozen=True)
class ScheduleSettings:
    """The ``schedule`` section of a config. Exactly one of ``epochs``, ``steps`` and ``minutes`` is set.

    Attributes:
        epochs: length in passes over the training images; may be a fraction.
        steps: length in optimizer steps; 0 evaluates and saves the initial weights.
        minutes: budget of training time (see :mod:`tldet.engine.schedule`).
        warmup_steps: steps over which the factor rises linearly from ``warmup_factor`` to 1 (Goyal et al. 2017); at
            most a quarter of the run.
        warmup_factor: factor of the first step.
        policy: ``multistep`` (times ``gamma`` at each milestone), ``cosine`` (to ``final_factor``) or ``constant``.
        milestones: times at which ``multistep`` lowers the factor, in the unit of the length: epochs, steps or minutes.
        gamma: the factor is multiplied by ``gamma`` at each milestone.
        final_factor: factor at the end of ``cosine``.

    Raises:
        ConfigError: a value is out of range, or the length is missing or given twice.
    """

    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    warmup_steps: int = 500
    warmup_factor: float = 0.001
    policy: Literal["multistep", "cosine", "constant"] = "cosine"
    milestones: Sequence[float] = ()
    gamma: float = 0.1
    final_factor: float = 0.0

    def __post_init__(self) -> None:
        given = {
            name: getattr(self, name) for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None
        }
        if len(given) != 1:
            raise ConfigError(f"schedule: set exactly one of epochs, steps and minutes, not {sorted(given) or 'none'}")
        for name, value in given.items():
            if not 0 < value < math.inf and (name, value) != ("steps", 0):
                raise ConfigError(f"schedule.{name} must be above 0{' (or 0)' * (name == 'steps')}, not {value}")
        if self.policy not in _POLICIES:
            raise ConfigError(f"schedule.policy must be one of {', '.join(_POLICIES)}, not {self.policy!r}")
        if self.warmup_steps < 0:
            raise ConfigError(f"schedule.warmup_steps must be 0 or more, not {self.warmup_steps}")
        for name in ("warmup_factor", "gamma", "final_factor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"schedule.{name} must be between 0 and 1, not {getattr(self, name)}")
        self._check_milestones()

    def _check_milestones(self) -> None:
        marks = list(self.milestones)
        if marks != sorted(set(marks)) or any(mark <= 0 for mark in marks):
            raise ConfigError(f"schedule.milestones must be increasing and above 0, not {marks}")
        if marks and self.policy != "multistep":
            raise ConfigError(f"schedule.milestones is for policy 'multistep' only; the policy is {self.policy!r}")
        if self.policy == "multistep" and not marks:
            raise ConfigError("schedule.milestones is needed with policy 'multistep' (or set policy to 'constant')")

    @property
    def length(self) -> float:
        """Length in the unit that is set: epochs, steps or minutes."""
        return next(float(value) for value in (self.epochs, self.steps, self.minutes) if value is not None)

    def total_steps(self, steps_per_epoch: float) -> int | None:
        """Return the number of optimizer steps, at least 1 unless ``steps`` is 0; None for a budget of minutes."""
        if self.minutes is not None:
            return None
        if self.steps == 0:
            return 0
        return max(1, round(self.length * (steps_per_epoch if self.epochs is not None else 1)))


def factor(
    settings: ScheduleSettings, step: int, total: int | None, steps_per_epoch: float, expected: int | None = None
) -> float:
    """Return the learning-rate factor of a step.

    Args:
        settings: the schedule.
        step: number of the step, from 0.
        total: number of steps of the run; None while a budget of minutes is measured: the factor is then 1 after
            warm-up.
        steps_per_epoch: optimizer steps per epoch.
        expected: estimate of ``total`` while that is None, to limit the warm-up.
    """
    known = expected if total is None else total
    warmup = settings.warmup_steps if known is None else min(settings.warmup_steps, known // 4)
    rise = 1.0
    if step < warmup:
        rise = settings.warmup_factor + (1 - settings.warmup_factor) * step / warmup
    if total is None:
        return rise
    if settings.policy == "multistep":
        return rise * _multistep(settings, step, total, steps_per_epoch)
    if settings.policy == "cosine" and step >= warmup:
        return _cosine(settings, (step - warmup) / max(1, total - warmup))
    return rise


def set_rates(optimizer: Optimizer, now: float) -> float:
    """Set the learning rate of each group to ``now`` times its initial one; return the highest."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * now
    return max(float(group["lr"]) for group in optimizer.param_groups)


def rates(optimizer: Optimizer) -> dict[str, float]:
    """Return the learning rate of each parameter group by name; a name is numbered if its groups differ."""
    found: dict[str, float] = {}
    for number, group in enumerate(optimizer.param_groups):
        name, lr = str(group.get("name", f"group {number}")), float(group["lr"])
        names = (name if n == 1 else f"{name} {n}" for n in itertools.count(1))
        found[next(one for one in names if found.get(one, lr) == lr)] = lr
    return found


def _multistep(settings: ScheduleSettings, step: int, total: int, steps_per_epoch: float) -> float:
    """Return ``gamma`` to the power of the number of milestones passed."""
    if settings.minutes is not None:
        unit = total / settings.minutes
    else:
        unit = steps_per_epoch if settings.epochs is not None else 1.0
    passed = sum(step >= round(mark * unit) for mark in settings.milestones)
    return float(settings.gamma**passed)


def _cosine(settings: ScheduleSettings, progress: float) -> float:
    """Return half a cosine from 1 to ``final_factor`` (Loshchilov and Hutter 2017) at ``progress`` in 0..1."""
    wave = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.final_factor + (1 - settings.final_factor) * wave


def falls_due(step: int, every: float | None, steps_per_epoch: float) -> bool:
    """Return True if step number ``step`` (the first is 1) passes a multiple of ``every`` epochs."""
    if every is None:
        return False
    period = every * steps_per_epoch
    return math.floor(step / period + 1e-9) > math.floor((step - 1) / period + 1e-9)


class Stopwatch:
    """Measures training time: the seconds spent inside :meth:`running`, in addition to those of earlier processes."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.seconds = 0.0
        self._clock = clock or time.perf_counter

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of the ``with`` block."""
        before = self._clock()
        try:
            yield
        finally:
            self.seconds += self._clock() - before


class Budget:
    """Finds the total number of steps that fit into a budget of training time.

    Args:
        seconds: the budget.
        start: number of steps taken before this process.
    """

    def __init__(self, seconds: float, start: int = 0) -> None:
        self.seconds = seconds
        self._start = start
        self._origin: tuple[int, float] | None = None

    @classmethod
    def of(cls, schedule: ScheduleSettings, state: TrainState) -> Budget | None:
        """Create the budget of a run; None if its number of steps is known."""
        if schedule.minutes is None or state.total is not None:
            return None
        return cls(60 * schedule.minutes, state.step)

    def expected(self, step: int, spent: float) -> int | None:
        """Estimate the total number of steps from the average step time so far; None before the first step."""
        return int(self.seconds * step / spent) if step and spent > 0 else None

    def fix(self, step: int, spent: float) -> int | None:
        """Return the total number of steps, once enough steps are measured; None before.

        Args:
            step: number of steps taken, at least 1.
            spent: seconds of training time, including earlier processes.
        """
        if spent >= self.seconds:
            return step
        if step - self._start < DROPPED:
            return None
        if self._origin is None:
            self._origin = (step, spent)
            return None
        steps, elapsed = step - self._origin[0], spent - self._origin[1]
        enough = steps >= MEASURED_STEPS and elapsed >= min(_LONG_ENOUGH, _LEAST_SHARE * self.seconds)
        if not enough and elapsed < _LONG_ENOUGH:
            return None
        total = step + int((self.seconds - spent) * steps / elapsed)
        log.info("%.3f s/step: %s in %s", elapsed / steps, counted(total, "step"), duration(self.seconds))
        return total
