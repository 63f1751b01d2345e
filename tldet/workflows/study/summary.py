"""The results of a study put together: means, intervals, comparisons, and what they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tldet.evaluation.statistics import (
    FEW,
    Difference,
    Floats,
    Interval,
    both_ways,
    difference,
    mean_interval,
    percentile_interval,
)
from tldet.text import counted
from tldet.workflows.study.variants import REFERENCE

METRIC = "AP"
UNEVEN = 1.3  # times that a step of one run may take longer than one of another of the same arm


@dataclass(frozen=True)
class Cell:
    """The runs of one arm on one number of pictures, seed by seed.

    Attributes:
        arm: its name.
        fraction: of the training pictures.
        runs: results by seed, seeds rising.
        judges: validation pictures with objects.
    """

    arm: str
    fraction: float
    runs: Mapping[int, Mapping[str, Any]]
    judges: int

    @property
    def pictures(self) -> int:
        """That each run was trained on."""
        return int(next(iter(self.runs.values()))["pictures"])

    def values(self, seeds: Sequence[int] | None = None, metric: str = METRIC) -> list[float]:
        """A number of each run."""
        return [float(self.runs[seed]["numbers"][metric]) for seed in (self.runs if seeds is None else seeds)]

    def samples(self, seeds: Sequence[int] | None = None) -> Floats:
        """(S, B) AP of each run on each draw of pictures; NaN where a draw had nothing to find, or too few pictures."""
        drawn = np.array([self.runs[seed]["resampled_ap"] for seed in (self.runs if seeds is None else seeds)])
        return np.where((drawn < 0) | (self.judges < FEW), np.nan, drawn)

    @property
    def over_seeds(self) -> Interval:
        """The mean AP, and how far more seeds may move it."""
        return mean_interval(self.values())

    @property
    def over_both(self) -> Interval:
        """The mean AP, and how far other seeds and other pictures to measure on may move it."""
        drawn = both_ways(self.samples(), np.random.default_rng(0))
        return percentile_interval(drawn, self.over_seeds.mean, len(self.runs))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        per_run = ("steps", "seconds")
        means = {name: float(np.mean([run[name] for run in self.runs.values()])) for name in per_run}
        seeds = {"seeds": list(self.runs), "values": self.values()}
        intervals = {"over_seeds": vars(self.over_seeds), "over_seeds_and_pictures": vars(self.over_both)}
        return {"arm": self.arm, "fraction": self.fraction, "pictures": self.pictures, **seeds, **intervals, **means}


@dataclass(frozen=True)
class Compared:
    """An arm beside the reference, on one fraction of the pictures."""

    arm: str
    reference: str
    fraction: float
    found: Difference

    @property
    def text(self) -> str:
        """The comparison in a line."""
        return f"{100 * self.fraction:.3g} % of the pictures: {self.found.verdict(self.arm, self.reference)}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        intervals = {"over_seeds": vars(self.found.seeds), "over_pictures": vars(self.found.pictures)}
        names = {"arm": self.arm, "reference": self.reference, "fraction": self.fraction}
        return {**names, **intervals, "decided": self.found.decided, "text": self.text}


def cells_of(results: Sequence[Mapping[str, Any]], judges: int) -> list[Cell]:
    """Results by arm and fraction, arms in the order of the results, fractions rising.

    Args:
        results: of all runs.
        judges: validation pictures with objects.
    """
    arms = list(dict.fromkeys(str(result["arm"]) for result in results))
    keys = sorted({(arms.index(result["arm"]), float(result["fraction"])) for result in results})
    cells = []
    for place, fraction in keys:
        mine = [r for r in results if r["arm"] == arms[place] and r["fraction"] == fraction]
        runs = {r["seed"]: r for r in sorted(mine, key=lambda r: int(r["seed"]))}
        cells.append(Cell(arms[place], fraction, runs, judges))
    return cells


def compare(cells: Sequence[Cell]) -> list[Compared]:
    """Every arm beside the reference: the fine-tuned one where there is one, else the first."""
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    reference = REFERENCE if REFERENCE in arms else arms[0]
    base = {cell.fraction: cell for cell in cells if cell.arm == reference}
    found = []
    for cell in cells:
        other = base.get(cell.fraction)
        seeds = [seed for seed in cell.runs if other is not None and seed in other.runs]
        if cell.arm == reference or other is None or not seeds:
            continue
        apart = difference(cell.values(seeds), other.values(seeds), cell.samples(seeds), other.samples(seeds))
        found.append(Compared(cell.arm, reference, cell.fraction, apart))
    return found


def resolution(cells: Sequence[Cell], compared: Sequence[Compared], pictures: int, objects: int) -> list[str]:
    """What the validation pictures can tell apart at best, whatever the number of seeds."""
    judges = cells[0].judges
    if judges < FEW:
        return [
            f"validation: {counted(pictures, 'image')}, {judges} with objects: too few to tell how other images would "
            f"move the AP; measure on at least {FEW}, better on a hundred"
        ]
    alone = [percentile_interval(row, 0.0, 1) for cell in cells for row in cell.samples()]
    lines = [
        f"validation: {counted(pictures, 'image')}, {counted(objects, 'object')}; other images would move the AP of a "
        f"run by about {_half(alone):.3f} either way"
    ]
    if compared:
        lines.append(
            f"on these pictures a difference between two arms of less than about "
            f"{_half([one.found.pictures for one in compared]):.3f} AP cannot be told, with any number of seeds"
        )
    if len(compared) > 1:
        lines.append(
            f"{len(compared)} comparisons, each at 95 % on its own: the more, the likelier one is wrong by chance"
        )
    return lines


def uneven(cells: Sequence[Cell]) -> list[str]:
    """A line for each arm whose steps took so unequal time that a budget of minutes was hardly equal for all arms."""
    lines = []
    for arm in dict.fromkeys(cell.arm for cell in cells):
        runs = [run for cell in cells if cell.arm == arm for run in cell.runs.values()]
        paces = [run["seconds"] / run["steps"] for run in runs if "minutes" in run["settings"]["length"]]
        if paces and max(paces) > UNEVEN * min(paces):
            lines.append(
                f"the machine was not equally quiet: a step of {arm} took {min(paces):.2f} to {max(paces):.2f} s; its "
                "number of steps may not be what the minutes hold (--steps does not depend on that)"
            )
    return lines


def _half(intervals: Sequence[Interval]) -> float:
    """Half the usual width of some intervals."""
    return float(np.median([((one.high or 0.0) - (one.low or 0.0)) / 2 for one in intervals]))
