"""Report of the benchmark: ``results.json``, ``quality.md`` and ``quality.png`` in the output directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.plots import plot_panels
from benchmarks.quality.plan import Speeds
from benchmarks.quality.summary import AREA, Mean, Results
from tldet.evaluation.statistics import Interval
from tldet.system.output import write_json, write_text
from tldet.visualize.curves import IntervalSeries
from tldet.workflows.study.report import PER_RUN_ONLY, RESULTS_NAME

SECTION_NAME, PLOT_NAME = "quality.md", "quality.png"
MEASURED = "measured once for each variant and dataset on the otherwise idle machine"
ANY_LOAD = "measured once for each variant and dataset while other processes may have used the machine"
GIVEN = "given by the user, not measured: the minutes are not those of this machine"
METHOD = """\
Each run has a fixed number of steps, the minutes times the speed ({speed}). Training time excludes startup and \
evaluation. The last weights are evaluated once.

Intervals are 95 %. AP by dataset: Student's t over seeds; budgets with one seed have none. Means over datasets: \
*over seeds* holds for these datasets (their variances are added, with Satterthwaite's degrees of freedom; a budget \
with one seed takes the variance of the dataset's other budgets), *over datasets* for further ones (Student's t of \
one value per dataset). Differences are paired by dataset, budget and seed, and not corrected for multiple \
comparisons. The area is that under AP over log(time), divided by the range of log(time): a mean AP in which each \
doubling of the time counts the same."""


@dataclass(frozen=True)
class QualityReport:
    """Results of the benchmark.

    Attributes:
        results: AP of the finished runs.
        runs: results of the finished runs.
        planned: number of runs.
        speeds: steps per minute.
        speed: origin of these, such as MEASURED.
        environment: machine and versions.
    """

    results: Results
    runs: Sequence[Mapping[str, Any]]
    planned: int
    speeds: Speeds
    speed: str
    environment: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        found = self.results
        rows = []
        for name, weights in found.rows():
            means = {v: _dict(found.mean(v, weights)) for v in found.variants}
            differences = {v: _dict(found.difference(v, weights)) for v in found.variants[1:]}
            rows.append({"of": name, "datasets": found.complete(weights), "means": means, "differences": differences})
        return {
            "environment": self.environment,
            "planned": self.planned,
            "reference": found.variants[0],
            "speed_origin": self.speed,
            "speed": [{"variant": v, "dataset": d, "steps_per_minute": speed} for (v, d), speed in self.speeds.items()],
            "means": rows,
            "runs": [{k: v for k, v in run.items() if k not in PER_RUN_ONLY} for run in self.runs],
        }

    def section(self) -> str:
        """Return the section of docs/benchmarks.md, Markdown."""
        found, machine = self.results, self.environment
        done = f"{len(self.runs)} of {self.planned} runs"
        where = f"{machine['processor']}, {machine['cores']} cores, torch {machine['versions'].get('torch')}"
        parts = [
            f"AP by training time ({where}; {done}):",
            _table(["dataset", "minutes", *found.variants], self._cells()),
            f"Mean over datasets, and difference to `{found.variants[0]}` (over seeds; over datasets):",
            _table(["", "datasets", *found.variants, *(f"{v}: difference" for v in found.variants[1:])], self._means()),
            f"![AP over training time]({PLOT_NAME})",
            "Steps per minute:",
            _table(["dataset", *found.variants], self._speed_rows()),
            METHOD.format(speed=self.speed),
        ]
        return "\n\n".join(parts) + "\n"

    def _cells(self) -> list[list[str]]:
        found, rows = self.results, []
        for dataset in found.datasets:
            for minutes in found.budgets:
                cells = [found.interval(variant, dataset, minutes) for variant in found.variants]
                rows.append([dataset, f"{minutes:g}", *(_with_ends(cell) for cell in cells)])
        return rows

    def _means(self) -> list[list[str]]:
        found, rows = self.results, []
        for name, weights in found.rows():
            means = [found.mean(variant, weights) for variant in found.variants]
            apart = [found.difference(variant, weights) for variant in found.variants[1:]]
            cells = [_with_ends(None if one is None else one.seeds) for one in means]
            shown = f"**{name}**" if name == AREA else name
            rows.append([shown, str(len(found.complete(weights))), *cells, *(_difference(one) for one in apart)])
        return rows

    def _speed_rows(self) -> list[list[str]]:
        variants = self.results.variants
        return [[d, *(f"{self.speeds[v, d]:.1f}" for v in variants)] for d in dict.fromkeys(d for _, d in self.speeds)]


def write_report(report: QualityReport, out: Path) -> None:
    """Write JSON, Markdown and plot.

    Raises:
        OutputError: a file cannot be written.
    """
    write_json(out / RESULTS_NAME, report.to_dict(), indent=1)
    write_text(out / SECTION_NAME, report.section())
    found, panels = report.results, dict[str, dict[str, IntervalSeries]]()
    means = {v: [(b, found.mean(v, {b: 1.0})) for b in found.budgets] for v in found.variants}
    of_all = {v: [(b, mean.seeds) for b, mean in several if mean is not None] for v, several in means.items()}
    panels["mean over datasets"] = _series(of_all)
    for dataset in found.datasets:
        cells = {v: [(b, found.interval(v, dataset, b)) for b in found.budgets] for v in found.variants}
        panels[dataset] = _series({v: [(b, one) for b, one in several if one] for v, several in cells.items()})
    shown = {name: series for name, series in panels.items() if series}
    plot_panels(shown, out / PLOT_NAME, title="AP over training time, 95 % intervals over seeds", xlabel="minutes")


def _series(points: Mapping[str, Sequence[tuple[float, Interval]]]) -> dict[str, IntervalSeries]:
    return {name: IntervalSeries([_point(*one) for one in several]) for name, several in points.items() if several}


def _point(minutes: float, one: Interval) -> tuple[float, float, float, float]:
    low, high = (one.mean if end is None else end for end in (one.low, one.high))
    return minutes, one.mean, low, high


def _dict(mean: Mean | None) -> dict[str, Any] | None:
    return None if mean is None else mean.to_dict()


def _with_ends(one: Interval | None) -> str:
    if one is None:
        return ""
    return f"{one.mean:.3f}" if one.low is None else f"{one.mean:.3f} ({one.ends()})"


def _difference(one: Mean | None) -> str:
    if one is None:
        return ""
    ends = [interval.ends(sign="+", missing="unknown") for interval in (one.seeds, one.datasets)]
    return f"{one.seeds.mean:+.3f} ({'; '.join(ends)})"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
