"""AP by dataset, budget and variant: means, areas under the curves, differences, and their intervals.

Two questions have two intervals. *Over seeds*: would the same datasets give this again with other seeds? Runs are
independent; the variance of a mean over datasets is the sum of their variances, with Satterthwaite's degrees of freedom
(1946). A budget with one seed takes the variance of the dataset's other budgets. *Over datasets*: would other datasets
give this? Student's t of the values of the datasets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tldet.evaluation.statistics import LEVEL, Interval, mean_interval, t_quantile

AREA = "area"
Values = Mapping[int, float]  # by seed
Groups = Mapping[str, Mapping[float, Sequence[float]]]  # values by dataset and budget


@dataclass(frozen=True)
class Mean:
    """A mean over datasets.

    Attributes:
        seeds: its interval over seeds, for the same datasets.
        datasets: its interval over datasets.
        values: the value of each dataset.
    """

    seeds: Interval
    datasets: Interval
    values: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {"over_seeds": vars(self.seeds), "over_datasets": vars(self.datasets), "values": dict(self.values)}


def area_weights(budgets: Sequence[float]) -> dict[float, float]:
    """Return the weight of each budget in the area under AP over log(time), which is divided by the range.

    The area is that of the trapezoids between ascending budgets: a mean AP in which each doubling of the time counts
    the same. One budget has the weight 1.
    """
    budgets = sorted(budgets)
    if len(budgets) == 1:
        return {budgets[0]: 1.0}
    weights = dict.fromkeys(budgets, 0.0)
    for low, high in pairwise(budgets):
        for one in (low, high):
            weights[one] += math.log(high / low) / 2 / math.log(budgets[-1] / budgets[0])
    return weights


def weighted_mean(groups: Groups, weights: Mapping[float, float]) -> Mean:
    """Return the mean over datasets of a weighted sum over budgets.

    Args:
        groups: values by dataset and budget; budgets without a weight only add to the estimate of the variance.
        weights: weight of each budget, of which each dataset has values.
    """
    values = {name: sum(w * _mean(group[b]) for b, w in weights.items()) for name, group in groups.items()}
    mean = math.fsum(values.values()) / len(values)
    parts = [part for group in groups.values() for part in _variances(group, weights)]
    count = sum(len(group[b]) for group in groups.values() for b in weights)
    return Mean(_satterthwaite(mean, parts, len(values), count), mean_interval(list(values.values())), values)


def _variances(group: Mapping[float, Sequence[float]], weights: Mapping[float, float]) -> list[tuple[float, int]]:
    """Return variance and degrees of freedom of each term of a dataset; 0 degrees if the variance is unknown."""
    squares = {b: math.fsum((v - _mean(values)) ** 2 for v in values) for b, values in group.items()}
    freedom = {b: len(values) - 1 for b, values in group.items()}
    parts = []
    for budget, weight in weights.items():
        own = freedom[budget] > 0
        degrees = freedom[budget] if own else sum(freedom.values())
        total = squares[budget] if own else math.fsum(squares.values())
        parts.append((weight**2 * total / max(degrees, 1) / len(group[budget]), degrees))
    return parts


def _satterthwaite(mean: float, parts: Sequence[tuple[float, int]], datasets: int, count: int) -> Interval:
    if any(degrees == 0 for _, degrees in parts):
        return Interval(mean, None, None, count)
    variance = math.fsum(part for part, _ in parts)
    if variance == 0:
        return Interval(mean, mean, mean, count)
    degrees = variance**2 / math.fsum(part**2 / freedom for part, freedom in parts)
    half = t_quantile((1 + LEVEL) / 2, max(1, int(degrees + 1e-9))) * math.sqrt(variance) / datasets
    return Interval(mean, mean - half, mean + half, count)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


@dataclass(frozen=True)
class Results:
    """AP of all finished runs.

    Attributes:
        variants: names; the first one is the reference.
        datasets: names.
        budgets: minutes, ascending.
        values: AP by seed, by (variant, dataset, minutes).
    """

    variants: Sequence[str]
    datasets: Sequence[str]
    budgets: Sequence[float]
    values: Mapping[tuple[str, str, float], Values]

    @classmethod
    def of(cls, runs: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> Results:
        """Collect the results of runs."""
        values: dict[tuple[str, str, float], dict[int, float]] = {}
        for run in runs:
            key = (run["variant"], run["dataset"], float(run["minutes"]))
            values.setdefault(key, {})[run["seed"]] = float(run["numbers"]["AP"])
        datasets = list(dict.fromkeys(run["dataset"] for run in runs))
        return cls(variants, datasets, sorted({minutes for *_, minutes in values}), values)

    def interval(self, variant: str, dataset: str, minutes: float) -> Interval | None:
        """Return the mean AP of a variant with Student's t-interval over seeds; None without a run."""
        found = self.values.get((variant, dataset, minutes))
        return None if found is None else mean_interval(list(found.values()))

    def rows(self) -> list[tuple[str, dict[float, float]]]:
        """Return name and budget weights of each mean over datasets: every budget, and the area under all."""
        rows = [(f"{minutes:g} min", {minutes: 1.0}) for minutes in self.budgets]
        return [*rows, (AREA, area_weights(self.budgets))] if len(rows) > 1 else rows

    def complete(self, weights: Mapping[float, float]) -> list[str]:
        """Return the datasets on which all variants have all these budgets."""
        return [d for d in self.datasets if all((v, d, b) in self.values for v in self.variants for b in weights)]

    def mean(self, variant: str, weights: Mapping[float, float]) -> Mean | None:
        """Return the mean of a variant over the complete datasets; None if there are none."""
        found = self.complete(weights)
        of = {d: {b: list(self._of(variant, d, b).values()) for b in self._known(variant, d)} for d in found}
        return weighted_mean(of, weights) if of else None

    def difference(self, variant: str, weights: Mapping[float, float]) -> Mean | None:
        """Return the mean difference to the reference, paired by dataset, budget and seed; None without pairs."""
        groups: dict[str, dict[float, list[float]]] = {}
        for dataset in self.complete(weights):
            group = {}
            for budget in self._known(variant, dataset):
                own, other = self._of(variant, dataset, budget), self._of(self.variants[0], dataset, budget)
                if pairs := [own[seed] - other[seed] for seed in own if seed in other]:
                    group[budget] = pairs
            if all(budget in group for budget in weights):
                groups[dataset] = group
        return weighted_mean(groups, weights) if groups else None

    def _of(self, variant: str, dataset: str, minutes: float) -> Values:
        return self.values.get((variant, dataset, minutes), {})

    def _known(self, variant: str, dataset: str) -> list[float]:
        return [b for b in self.budgets if (variant, dataset, b) in self.values]
