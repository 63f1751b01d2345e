"""A budget of training time turned into a number of steps, once.

What counts is the time spent in the loop: loading data, forward, backward, the step. Start-up, evaluation and writing
checkpoints do not. The number is stored in the checkpoint and never measured again, so that a resumed run ends where
the run left alone would have ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tldet.engine.progress import duration
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.state import TrainState

log = logging.getLogger(__name__)

DROPPED = 3  # first steps of a process, slow for reasons that do not come back (allocation, caches, autotuning)
LEAST_STEPS = 8  # a mean over fewer says little
LONG_ENOUGH = 30.0  # seconds after which slow steps need no further measuring
LEAST_SHARE = 0.15  # of the budget, for fast steps: eight of 10 ms, or of one size of picture, would be noise


class Stopwatch:
    """Seconds spent inside ``running()``, added to what an earlier process spent."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.seconds = 0.0
        self._clock = clock or time.perf_counter

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the ``with`` block."""
        before = self._clock()
        try:
            yield
        finally:
            self.seconds += self._clock() - before


class Budget:
    """Finds the total number of steps that fit into a budget of training time.

    Args:
        seconds: the budget.
        start: steps that were already taken when this process began to measure.
    """

    def __init__(self, seconds: float, start: int = 0) -> None:
        self.seconds = seconds
        self._start = start
        self._origin: tuple[int, float] | None = None

    @classmethod
    def of(cls, schedule: ScheduleSettings, state: TrainState) -> Budget | None:
        """What measures from here on; None where the number of steps is known."""
        if schedule.minutes is None or state.total is not None:
            return None
        return cls(60 * schedule.minutes, state.step)

    def expected(self, step: int, spent: float) -> int | None:
        """Estimate the total number of steps from the average step time so far; None before the first step."""
        return int(self.seconds * step / spent) if step and spent > 0 else None

    def fix(self, step: int, spent: float) -> int | None:
        """The total number of steps, or None while it is too early to say.

        Args:
            step: steps taken so far, at least 1.
            spent: seconds of training time so far, those of earlier processes included.
        """
        if spent >= self.seconds:
            return step
        if step - self._start < DROPPED:
            return None
        if self._origin is None:
            self._origin = (step, spent)
            return None
        steps, elapsed = step - self._origin[0], spent - self._origin[1]
        enough = steps >= LEAST_STEPS and elapsed >= min(LONG_ENOUGH, LEAST_SHARE * self.seconds)
        if not enough and elapsed < LONG_ENOUGH:
            return None
        total = step + int((self.seconds - spent) * steps / elapsed)
        log.info("%.3f s a step: the budget of %s holds %d steps", elapsed / steps, duration(self.seconds), total)
        return total
