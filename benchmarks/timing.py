"""Two sides timed in turns, so that whatever else the machine does falls on both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEAST_ROUNDS = 2  # taken even when they pass the limit


@dataclass(frozen=True)
class Times:
    """Measured values of one side, in the order they were taken; seconds, or ratios."""

    samples: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """The value that a share of the samples lies below, between two samples in proportion."""
        rising = sorted(self.samples)
        place = share * (len(rising) - 1)
        below = int(place)
        above = min(below + 1, len(rising) - 1)
        return rising[below] + (place - below) * (rising[above] - rising[below])

    @property
    def median(self) -> float:
        """The middle one."""
        return self.quantile(0.5)

    def to_dict(self) -> dict[str, Any]:
        """Median, quartiles and every sample, for JSON."""
        quartiles = {"q1": self.quantile(0.25), "q3": self.quantile(0.75)}
        return {"median": self.median, **quartiles, "samples": list(self.samples)}


@dataclass(frozen=True)
class Comparison:
    """Seconds of both sides, round by round.

    Attributes:
        ours: seconds of each round.
        theirs: seconds of the other side in the same round.
    """

    ours: Times
    theirs: Times

    @property
    def ratios(self) -> Times:
        """Of each round how many times longer theirs took than ours: above 1 ours is faster."""
        pairs = zip(self.ours.samples, self.theirs.samples, strict=True)
        return Times(tuple(theirs / max(ours, 1e-12) for ours, theirs in pairs))

    def divided(self, parts: int) -> Comparison:
        """The same for one of ``parts`` equal parts of what was timed (an image of a batch, a step of many)."""
        ours, theirs = (tuple(s / parts for s in side.samples) for side in (self.ours, self.theirs))
        return Comparison(Times(ours), Times(theirs))


def alternate(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    repeats: int,
    *,
    warmup: int = 1,
    limit: float = float("inf"),
    self_timed: bool = False,
    clock: Callable[[], float] = time.perf_counter,
    told: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Time both sides in turns; who goes first changes each round, so that a drift falls on both.

    Args:
        ours: one side.
        theirs: the other.
        repeats: rounds, at least 1.
        warmup: rounds before them that do not count.
        limit: seconds after which no further round begins; two rounds are always taken.
        self_timed: the sides return their seconds themselves.
        clock: seconds.
        told: called with the number of each round before it.
    """
    begin = clock()
    sides = (ours, theirs)
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(-warmup, max(repeats, 1)):
        if number >= LEAST_ROUNDS and clock() - begin >= limit:
            break
        told(number)
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            start = clock()
            returned = sides[place]()
            seconds = float(returned) if self_timed else clock() - start
            if number >= 0:
                taken[place].append(seconds)
    return Comparison(Times(tuple(taken[0])), Times(tuple(taken[1])))


def best_of(call: Callable[[], Any], runs: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest of several runs: what the machine can do when nothing is in the way."""
    seconds: list[float] = []
    for _ in range(runs):
        start = clock()
        call()
        seconds.append(clock() - start)
    return min(seconds)
