"""Results of a few-shot experiment: AP of base and novel classes over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import stdev
from typing import TYPE_CHECKING, Any

from tldet.evaluation.report import mean_over
from tldet.evaluation.statistics import Interval, mean_interval
from tldet.text import table_as_html

if TYPE_CHECKING:
    from rich.table import Table

_Result = Mapping[str, Any]  # of a run
_FIELDS = {"AP": "per_class", "AP50": "per_class_ap50"}  # metric and the field of its values per class
_SHOWN = ("base_AP", "novel_AP", "novel_AP50")


@dataclass(frozen=True)
class Spread:
    """Metric over seeds: mean with its 95 % interval (Student's t), and sample standard deviation.

    With one seed, there is no interval and no deviation.
    """

    interval: Interval
    deviation: float | None

    def __str__(self) -> str:
        if self.deviation is None or self.interval.high is None:
            return f"{self.interval.mean:.3f}"
        half = self.interval.high - self.interval.mean
        return f"{self.interval.mean:.3f} ± {half:.3f}\nsd {self.deviation:.3f}"


def spread(values: Sequence[float]) -> Spread:
    """Return the mean, interval and deviation of one or more values."""
    return Spread(mean_interval(values), stdev(values) if len(values) > 1 else None)


def group_metrics(result: _Result, base: Sequence[str], novel: Sequence[str]) -> dict[str, float]:
    """Return ``base_AP``, ``base_AP50``, ``novel_AP``, ``novel_AP50`` of a run; -1 without ground truth."""
    names = {"base": base, "novel": novel}
    return {
        f"{group}_{key}": mean_over(result[field], names[group]) for group in names for key, field in _FIELDS.items()
    }


@dataclass(frozen=True, repr=False)
class FewShotReport:
    """Metrics of an experiment.

    Attributes:
        before: metrics after base training (:func:`group_metrics`).
        runs: metrics of each K-shot run, with its ``variant``, ``shots`` and ``seed``.
    """

    before: Mapping[str, float]
    runs: Sequence[Mapping[str, Any]]

    def __repr__(self) -> str:
        means = (
            f"{one['variant']} with {one['shots']} shots {one['novel_AP'].interval.mean:.3f}" for one in self.settings()
        )
        return f"FewShotReport(AP of novel classes: {', '.join(means) or 'no runs'})"

    def _repr_html_(self) -> str:
        return table_as_html(self.table())

    def settings(self) -> list[dict[str, Any]]:
        """Return the seeds and the :class:`Spread` of each metric for each variant and number of shots."""
        entries = []
        for variant, shots in dict.fromkeys((run["variant"], run["shots"]) for run in self.runs):
            same = [run for run in self.runs if (run["variant"], run["shots"]) == (variant, shots)]
            numbers = {key: spread([run[key] for run in same]) for key in self.before}
            entries.append({"variant": variant, "shots": shots, "seeds": [run["seed"] for run in same], **numbers})
        return entries

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        plain = [{k: asdict(v) if isinstance(v, Spread) else v for k, v in one.items()} for one in self.settings()]
        return {"before": dict(self.before), "summary": plain, "runs": [dict(run) for run in self.runs]}

    def table(self) -> Table:
        """Return base and novel AP after base training and for each variant and number of shots."""
        from rich.table import Table

        shown = Table(title="AP, mean ± 95 % interval over seeds; sd: standard deviation")
        for name in ("variant", "shots", "seeds"):
            shown.add_column(name)
        for key in _SHOWN:
            shown.add_column(key.replace("_", " "), justify="right")
        shown.add_row("base", "all", "", *(f"{v:.3f}" if (v := self.before[key]) >= 0 else "-" for key in _SHOWN))
        for one in self.settings():
            seeds = ", ".join(map(str, one["seeds"]))
            shown.add_row(one["variant"], str(one["shots"]), seeds, *(str(one[key]) for key in _SHOWN))
        return shown
