"""Report of a study: table, comparisons, ``results.json`` and ``study.png``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tldet.errors import DataError
from tldet.evaluation.columns import GroundTruth, labeled_objects
from tldet.evaluation.loading import load_ground_truth
from tldet.evaluation.power_law import FARTHEST, PowerLaw, fit
from tldet.system.output import write_json
from tldet.text import counted, table_as_html
from tldet.visualize.curves import IntervalSeries, plot_intervals, plot_variants
from tldet.workflows.study.summary import Compared, Group, compare_variants, groups_of, resolution, uneven

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

RESULTS_NAME, PLOT_NAME = "results.json", "study.png"  # in the output directory
PER_RUN_ONLY = ("settings", "resampled_ap", "resampling")  # only in the files of the runs
CURVE_POINTS = 60


@dataclass(repr=False)
class StudyReport:
    """Results of a study.

    Attributes:
        runs: results of all runs.
        groups: runs by variant and fraction.
        compared: comparison of every variant with the reference.
        lines: conclusions, one per line.
        curve: AP by number of training images, for a study of data with enough runs.
        predictions: predicted AP by number of training images.
    """

    runs: Sequence[Mapping[str, Any]]
    groups: Sequence[Group]
    compared: Sequence[Compared]
    lines: list[str]
    curve: PowerLaw | None = None
    predictions: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"StudyReport({counted(len(self.runs), 'run')}: {'; '.join(self.lines) or 'no conclusions'})"

    def _repr_html_(self) -> str:
        return table_as_html(self.table()) + "".join(f"<p>{escape(line)}</p>" for line in self.lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        curve = None
        if self.curve is not None:
            curve = {"a": self.curve.a, "b": self.curve.b, "c": self.curve.c, "expected": self.predictions}
        return {
            "verdict": self.lines,
            "summary": [group.to_dict() for group in self.groups],
            "comparisons": [one.to_dict() for one in self.compared],
            "curve": curve,
            "runs": [{k: v for k, v in run.items() if k not in PER_RUN_ONLY} for run in self.runs],
        }

    def table(self) -> Table:
        """Return the table of means, one row per variant and number of images."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title="mean over seeds, 95 % intervals of AP", box=None, padding=(0, 1))
        for heading in (
            "variant",
            "images",
            "seeds",
            "steps",
            "AP50",
            "AP",
            "interval over seeds",
            "over seeds and images",
        ):
            shown.add_column(heading, justify="left" if heading == "variant" else "right")
        for group in self.groups:
            found = group.to_dict()
            counts = (str(group.images), str(len(group.runs)), f"{found['steps']:.0f}")
            means = (f"{np.mean(group.values(metric='AP50')):.3f}", f"{group.over_seeds.mean:.3f}")
            shown.add_row(
                Text(group.variant),
                *counts,
                *means,
                group.over_seeds.ends("-"),
                group.over_both.ends("-", missing="unknown"),
            )
        return shown


def make_study_report(results: Sequence[Mapping[str, Any]], truth: GroundTruth | Path) -> StudyReport:
    """Create the report of a study.

    Args:
        results: results of all runs.
        truth: ground truth of the evaluated images, or its COCO JSON.
    """
    objects = labeled_objects(truth if isinstance(truth, GroundTruth) else load_ground_truth(truth, "bbox"))
    groups = groups_of(results, len(np.unique(objects.images)))
    compared = compare_variants(groups)
    lines = [one.text for one in compared]
    lines += resolution(groups, compared, len(objects.image_ids), len(objects.images))
    lines += uneven(groups)
    return StudyReport(results, groups, compared, lines)


def add_curve(report: StudyReport, images: Sequence[int]) -> None:
    """Fit AP by number of training images and predict AP for more images.

    Args:
        report: report of a study of one variant, changed in place.
        images: numbers of images to predict the AP of.

    Raises:
        DataError: a number is too far beyond the evaluated numbers.
    """
    try:
        report.curve = fit([int(r["images"]) for r in report.runs], [float(r["numbers"]["AP"]) for r in report.runs])
    except DataError as error:
        report.lines.insert(0, f"no learning curve: {error}")
        return
    predicted = [_predicted(report, report.curve, number) for number in images]
    curve = report.curve
    report.lines[:0] = [
        f"learning curve: AP(n) = {curve.a:.3f} - {curve.b:.3g} n^-{curve.c:.2f}, n training images",
        *predicted,
    ]


def _predicted(report: StudyReport, curve: PowerLaw, images: int) -> str:
    found = curve.at(images)
    report.predictions[images] = vars(found)
    more = images - curve.largest
    what = f"with {counted(images, 'image')}"
    if more > 0:
        what = f"with {counted(more, 'more image', 'more images')} ({images:,} in total)"
    beyond = "" if more <= 0 else ", if the curve continues"
    return f"{what}: predicted AP {found.low:.3f} to {found.high:.3f} (mean over seeds, same training length){beyond}"


def write_study(report: StudyReport, out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``results.json`` and ``study.png``.

    Raises:
        OutputError: a file cannot be written.
    """
    write_json(out / RESULTS_NAME, {"settings": settings, **report.to_dict()}, indent=1)
    title = "mean over seeds, 95 % interval over seeds and images"
    fractions = {group.fraction for group in report.groups}
    if len(fractions) == 1:
        plot_variants({group.variant: _point(group, 0)[1:] for group in report.groups}, out / PLOT_NAME, title=title)
    else:
        plot_intervals(_by_images(report), out / PLOT_NAME, title=title, xlabel="training images")


def _point(group: Group, x: float) -> tuple[float, float, float, float]:
    found = group.over_both
    low, high = (found.mean if end is None else end for end in (found.low, found.high))
    return x, found.mean, low, high


def _by_images(report: StudyReport) -> dict[str, IntervalSeries]:
    series = {}
    for variant in dict.fromkeys(group.variant for group in report.groups):
        points = [_point(group, group.images) for group in report.groups if group.variant == variant]
        series[variant] = IntervalSeries(points, _curve_points(report.curve, points[0][0]) if report.curve else ())
    return series


def _curve_points(curve: PowerLaw, smallest: float) -> list[tuple[float, float, float, float]]:
    """Return points of the curve, from the smallest number of images to the limit of predictions."""
    numbers = np.geomspace(smallest, FARTHEST * curve.largest, CURVE_POINTS)[:-1]
    found = [(float(n), curve.at(n)) for n in numbers]
    return [(n, one.mean, one.low or 0.0, one.high or 0.0) for n, one in found]


def show_study(report: StudyReport, console: Console) -> None:
    """Print the table and the conclusions."""
    console.print(report.table())
    for line in report.lines:
        console.print(line, markup=False, highlight=False)
