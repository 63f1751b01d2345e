"""Results of a study: means, intervals and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.evaluation.statistics import (
    FEW,
    Difference,
    Interval,
    difference,
    mean_interval,
    percentile_interval,
    pigeonhole_bootstrap,
)
from tldet.text import counted
from tldet.workflows.study.variants import REFERENCE

METRIC = "AP"
UNEVEN = 1.3  # largest ratio of step times between runs of a variant


@dataclass(frozen=True)
class Group:
    """Runs of one variant on one fraction of the training images.

    Attributes:
        variant: name of the variant.
        fraction: fraction of the training images.
        runs: results by seed, in ascending order.
        evaluated: number of validation images with objects.
    """

    variant: str
    fraction: float
    runs: Mapping[int, Mapping[str, Any]]
    evaluated: int

    @property
    def images(self) -> int:
        """Number of training images of each run."""
        return int(next(iter(self.runs.values()))["images"])

    def values(self, seeds: Sequence[int] | None = None, metric: str = METRIC) -> list[float]:
        """Return a metric of each run."""
        return [float(self.runs[seed]["numbers"][metric]) for seed in (self.runs if seeds is None else seeds)]

    def samples(self, seeds: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Return AP (S, B) of each run on each bootstrap sample; NaN for samples without objects or too few images."""
        drawn = np.array([self.runs[seed]["resampled_ap"] for seed in (self.runs if seeds is None else seeds)])
        return np.where((drawn < 0) | (self.evaluated < FEW), np.nan, drawn)

    @property
    def over_seeds(self) -> Interval:
        """Mean AP with its interval over seeds."""
        return mean_interval(self.values())

    @property
    def over_both(self) -> Interval:
        """Mean AP with its interval over seeds and validation images."""
        drawn = pigeonhole_bootstrap(self.samples(), np.random.default_rng(0))
        return percentile_interval(drawn, self.over_seeds.mean, len(self.runs))

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
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
    """Comparison of a variant with the reference on one fraction of the images."""

    variant: str
    reference: str
    fraction: float
    found: Difference

    @property
    def text(self) -> str:
        """The comparison in one line."""
        return f"{100 * self.fraction:.3g} % of the images: {self.found.verdict(self.variant, self.reference)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        intervals = {"over_seeds": vars(self.found.seeds), "over_images": vars(self.found.images)}
        names = {"variant": self.variant, "reference": self.reference, "fraction": self.fraction}
        return {**names, **intervals, "significant": self.found.significant, "text": self.text}


def groups_of(results: Sequence[Mapping[str, Any]], evaluated: int) -> list[Group]:
    """Group results by variant (in the order of the results) and fraction (ascending).

    Args:
        results: results of all runs.
        evaluated: number of validation images with objects.
    """
    variants = list(dict.fromkeys(str(result["variant"]) for result in results))
    keys = sorted({(variants.index(result["variant"]), float(result["fraction"])) for result in results})
    groups = []
    for number, fraction in keys:
        mine = [r for r in results if r["variant"] == variants[number] and r["fraction"] == fraction]
        runs = {r["seed"]: r for r in sorted(mine, key=lambda r: int(r["seed"]))}
        groups.append(Group(variants[number], fraction, runs, evaluated))
    return groups


def compare_variants(groups: Sequence[Group]) -> list[Compared]:
    """Compare every variant with the fine-tuned one, or with the first variant if there is no fine-tuned one."""
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
    """Describe the smallest difference that the validation images can resolve, for any number of seeds."""
    evaluated = groups[0].evaluated
    if evaluated < FEW:
        return [
            f"validation: {counted(images, 'image')}, {evaluated} with objects: too few for an interval over images; "
            f"use at least {FEW} images, better 100"
        ]
    alone = [percentile_interval(row, 0.0, 1) for group in groups for row in group.samples()]
    lines = [
        f"validation: {counted(images, 'image')}, {counted(objects, 'object')}; 95 % interval over images of the "
        f"AP of a run: +/- {_half(alone):.3f}"
    ]
    if compared:
        lines.append(
            f"with these images, differences below about {_half([one.found.images for one in compared]):.3f} AP "
            "between two variants are not significant, for any number of seeds"
        )
    if len(compared) > 1:
        lines.append(f"{counted(len(compared), 'comparison')} at 95 % each, not corrected for multiple comparisons")
    return lines


def uneven(groups: Sequence[Group]) -> list[str]:
    """Return a line per variant whose step times vary so much that its steps may not fit the minutes."""
    lines = []
    for variant in dict.fromkeys(group.variant for group in groups):
        runs = [run for group in groups if group.variant == variant for run in group.runs.values()]
        times = [run["seconds"] / run["steps"] for run in runs if "minutes" in run["settings"]["length"]]
        if times and max(times) > UNEVEN * min(times):
            lines.append(
                f"step times of {variant} vary from {min(times):.2f} to {max(times):.2f} s (other load on "
                "the machine?); its number of steps may not fit the minutes (use --steps to avoid this)"
            )
    return lines


def _half(intervals: Sequence[Interval]) -> float:
    """Return half the median width of intervals."""
    return float(np.median([((one.high or 0.0) - (one.low or 0.0)) / 2 for one in intervals]))
