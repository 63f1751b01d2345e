"""Timing of two sides in turns, so that other load on the machine affects both."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LEAST_ROUNDS = 2  # also beyond the time limit


@dataclass(frozen=True)
class Times:
    """Samples of one side in order; seconds or ratios."""

    samples: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """Return a quantile of the samples, linearly interpolated."""
        ordered = sorted(self.samples)
        rank = share * (len(ordered) - 1)
        below = int(rank)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (rank - below) * (ordered[above] - ordered[below])

    @property
    def median(self) -> float:
        """Median of the samples."""
        return self.quantile(0.5)

    def to_dict(self) -> dict[str, Any]:
        """Return median, quartiles and samples for JSON."""
        quartiles = {"q1": self.quantile(0.25), "q3": self.quantile(0.75)}
        return {"median": self.median, **quartiles, "samples": list(self.samples)}


@dataclass(frozen=True)
class Comparison:
    """Seconds of both sides in each round.

    Attributes:
        ours: seconds of each round.
        theirs: seconds of the other side in the same round.
    """

    ours: Times
    theirs: Times

    @property
    def ratios(self) -> Times:
        """Ratio of theirs to ours in each round; above 1, ours is faster."""
        pairs = zip(self.ours.samples, self.theirs.samples, strict=True)
        return Times(tuple(theirs / max(ours, 1e-12) for ours, theirs in pairs))

    def divided(self, parts: int) -> Comparison:
        """Return the comparison per part of the timed work, for example per image of a batch."""
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
    on_round: Callable[[int], None] = lambda _: None,
) -> Comparison:
    """Time both sides in turns; the order changes each round, so that drift affects both.

    Args:
        ours: one side.
        theirs: the other side.
        repeats: rounds, at least 1.
        warmup: additional rounds at the start that are not counted.
        limit: seconds after which no further round begins; there are at least two rounds.
        self_timed: the sides return their time in seconds.
        clock: time in seconds.
        on_round: called with the number of each round before the round.
    """
    begin = clock()
    sides = (ours, theirs)
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(-warmup, max(repeats, 1)):
        if number >= LEAST_ROUNDS and clock() - begin >= limit:
            break
        on_round(number)
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            start = clock()
            returned = sides[side]()
            seconds = float(returned) if self_timed else clock() - start
            if number >= 0:
                taken[side].append(seconds)
    return Comparison(Times(tuple(taken[0])), Times(tuple(taken[1])))


def best_of(call: Callable[[], Any], runs: int = 5, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of the fastest of several runs."""
    seconds: list[float] = []
    for _ in range(runs):
        start = clock()
        call()
        seconds.append(clock() - start)
    return min(seconds)
