"""The results of a study put together: means, intervals, comparisons, and what they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tldet.evaluation.statistics import (
    FEW,
    Difference,
    Interval,
    _Floats,
    both_ways,
    difference,
    mean_interval,
    percentile_interval,
)
from tldet.text import counted
from tldet.workflows.study.variants import REFERENCE

METRIC = "AP"
UNEVEN = 1.3  # times that a step of one run may take longer than one of another of the same variant


@dataclass(frozen=True)
class Group:
    """The runs of one variant on one number of images, seed by seed.

    Attributes:
        variant: its name.
        fraction: of the training images.
        runs: results by seed, seeds rising.
        judges: validation images with objects.
    """

    variant: str
    fraction: float
    runs: Mapping[int, Mapping[str, Any]]
    judges: int

    @property
    def images(self) -> int:
        """That each run was trained on."""
        return int(next(iter(self.runs.values()))["images"])

    def values(self, seeds: Sequence[int] | None = None, metric: str = METRIC) -> list[float]:
        """A number of each run."""
        return [float(self.runs[seed]["numbers"][metric]) for seed in (self.runs if seeds is None else seeds)]

    def samples(self, seeds: Sequence[int] | None = None) -> _Floats:
        """(S, B) AP of each run on each draw of images; NaN where a draw had nothing to find, or too few images."""
        drawn = np.array([self.runs[seed]["resampled_ap"] for seed in (self.runs if seeds is None else seeds)])
        return np.where((drawn < 0) | (self.judges < FEW), np.nan, drawn)

    @property
    def over_seeds(self) -> Interval:
        """The mean AP, and how far more seeds may move it."""
        return mean_interval(self.values())

    @property
    def over_both(self) -> Interval:
        """The mean AP, and how far other seeds and other images to measure on may move it."""
        drawn = both_ways(self.samples(), np.random.default_rng(0))
        return percentile_interval(drawn, self.over_seeds.mean, len(self.runs))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        per_run = ("steps", "seconds")
        means = {name: float(np.mean([run[name] for run in self.runs.values()])) for name in per_run}
        seeds = {"seeds": list(self.runs), "values": self.values()}
        intervals = {"over_seeds": vars(self.over_seeds), "over_seeds_and_images": vars(self.over_both)}
        return {
            "variant": self.variant,
            "fraction": self.fraction,
            "images": self.images,
            **seeds,
            **intervals,
            **means,
        }


@dataclass(frozen=True)
class Compared:
    """A variant beside the reference, on one fraction of the images."""

    variant: str
    reference: str
    fraction: float
    found: Difference

    @property
    def text(self) -> str:
        """The comparison in a line."""
        return f"{100 * self.fraction:.3g} % of the images: {self.found.verdict(self.variant, self.reference)}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        intervals = {"over_seeds": vars(self.found.seeds), "over_images": vars(self.found.images)}
        names = {"variant": self.variant, "reference": self.reference, "fraction": self.fraction}
        return {**names, **intervals, "decided": self.found.decided, "text": self.text}


def groups_of(results: Sequence[Mapping[str, Any]], judges: int) -> list[Group]:
    """Results by variant and fraction, variants in the order of the results, fractions rising.

    Args:
        results: of all runs.
        judges: validation images with objects.
    """
    variants = list(dict.fromkeys(str(result["variant"]) for result in results))
    keys = sorted({(variants.index(result["variant"]), float(result["fraction"])) for result in results})
    groups = []
    for place, fraction in keys:
        mine = [r for r in results if r["variant"] == variants[place] and r["fraction"] == fraction]
        runs = {r["seed"]: r for r in sorted(mine, key=lambda r: int(r["seed"]))}
        groups.append(Group(variants[place], fraction, runs, judges))
    return groups


def compare(groups: Sequence[Group]) -> list[Compared]:
    """Every variant beside the reference: the fine-tuned one where there is one, else the first."""
    variants = list(dict.fromkeys(group.variant for group in groups))
    reference = REFERENCE if REFERENCE in variants else variants[0]
    base = {group.fraction: group for group in groups if group.variant == reference}
    found = []
    for group in groups:
        other = base.get(group.fraction)
        seeds = [seed for seed in group.runs if other is not None and seed in other.runs]
        if group.variant == reference or other is None or not seeds:
            continue
        apart = difference(group.values(seeds), other.values(seeds), group.samples(seeds), other.samples(seeds))
        found.append(Compared(group.variant, reference, group.fraction, apart))
    return found


def resolution(groups: Sequence[Group], compared: Sequence[Compared], images: int, objects: int) -> list[str]:
    """What the validation images can tell apart at best, whatever the number of seeds."""
    judges = groups[0].judges
    if judges < FEW:
        return [
            f"validation: {counted(images, 'image')}, {judges} with objects: too few to tell how other images would "
            f"move the AP; measure on at least {FEW}, better on a hundred"
        ]
    alone = [percentile_interval(row, 0.0, 1) for group in groups for row in group.samples()]
    lines = [
        f"validation: {counted(images, 'image')}, {counted(objects, 'object')}; other images would move the AP of a "
        f"run by about {_half(alone):.3f} either way"
    ]
    if compared:
        lines.append(
            f"on these images a difference between two variants of less than about "
            f"{_half([one.found.images for one in compared]):.3f} AP cannot be told, with any number of seeds"
        )
    if len(compared) > 1:
        lines.append(
            f"{len(compared)} comparisons, each at 95 % on its own: the more, the likelier one is wrong by chance"
        )
    return lines


def uneven(groups: Sequence[Group]) -> list[str]:
    """A line per variant whose step times vary so much that a budget in minutes was not equal for all variants."""
    lines = []
    for variant in dict.fromkeys(group.variant for group in groups):
        runs = [run for group in groups if group.variant == variant for run in group.runs.values()]
        paces = [run["seconds"] / run["steps"] for run in runs if "minutes" in run["settings"]["length"]]
        if paces and max(paces) > UNEVEN * min(paces):
            lines.append(
                f"step times of {variant} vary from {min(paces):.2f} to {max(paces):.2f} s (other load on "
                "the machine?); its number of steps may not fit the minutes (use --steps to avoid this)"
            )
    return lines


def _half(intervals: Sequence[Interval]) -> float:
    """Half the usual width of some intervals."""
    return float(np.median([((one.high or 0.0) - (one.low or 0.0)) / 2 for one in intervals]))
