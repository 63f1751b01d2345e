"""A study shown and written: a table, a verdict, ``results.json`` and ``study.png``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tldet.errors import DataError
from tldet.evaluation.columns import GroundTruth, labeled_objects
from tldet.evaluation.loading import load_ground_truth
from tldet.evaluation.power_law import FARTHEST, PowerLaw, fit
from tldet.system.output import write_json
from tldet.text import counted
from tldet.visualize.drawing import Series, plot_intervals
from tldet.workflows.study.summary import Cell, Compared, cells_of, compare, resolution, uneven

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

RESULTS_NAME, PLOT_NAME = "results.json", "study.png"  # in the study's folder
PER_RUN_ONLY = ("settings", "resampled_ap", "resampling")  # kept only in the files of the runs
ALONG = 60  # points of a drawn curve


@dataclass
class Report:
    """What a study found.

    Attributes:
        runs: results of all runs.
        cells: by arm and number of pictures.
        compared: every arm beside the reference.
        lines: the verdict, in plain words.
        curve: AP by the number of pictures, where that was asked for and can be fitted.
        predictions: pictures -> AP to expect.
    """

    runs: Sequence[Mapping[str, Any]]
    cells: Sequence[Cell]
    compared: Sequence[Compared]
    lines: list[str]
    curve: PowerLaw | None = None
    predictions: dict[int, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        curve = None
        if self.curve is not None:
            curve = {"a": self.curve.a, "b": self.curve.b, "c": self.curve.c, "expected": self.predictions}
        return {
            "verdict": self.lines,
            "summary": [cell.to_dict() for cell in self.cells],
            "comparisons": [one.to_dict() for one in self.compared],
            "curve": curve,
            "runs": [{k: v for k, v in run.items() if k not in PER_RUN_ONLY} for run in self.runs],
        }

    def table(self) -> Table:
        """The means, an arm and a number of pictures a row."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title="means over seeds; 95 % intervals of AP", box=None, padding=(0, 1))
        for heading in ("arm", "pictures", "seeds", "steps", "AP50", "AP", "over seeds", "and pictures"):
            shown.add_column(heading, justify="left" if heading == "arm" else "right")
        for cell in self.cells:
            found = cell.to_dict()
            counts = (str(cell.pictures), str(len(cell.runs)), f"{found['steps']:.0f}")
            means = (f"{np.mean(cell.values(metric='AP50')):.3f}", f"{cell.over_seeds.mean:.3f}")
            shown.add_row(
                Text(cell.arm), *counts, *means, cell.over_seeds.ends("-"), cell.over_both.ends("-", untold="unknown")
            )
        return shown


def make_report(results: Sequence[Mapping[str, Any]], truth: GroundTruth | Path) -> Report:
    """Put the results of a study together.

    Args:
        results: of all runs.
        truth: ground truth of the images that they were evaluated on, or its COCO JSON.
    """
    objects = labeled_objects(truth if isinstance(truth, GroundTruth) else load_ground_truth(truth, "bbox"))
    cells = cells_of(results, len(np.unique(objects.images)))
    compared = compare(cells)
    lines = [one.text for one in compared]
    lines += resolution(cells, compared, len(objects.image_ids), len(objects.images))
    lines += uneven(cells)
    return Report(results, cells, compared, lines)


def add_curve(report: Report, pictures: Sequence[int]) -> None:
    """Fit AP by the number of training pictures, and say what more pictures are expected to bring.

    Args:
        report: of a study of one arm; the curve is added to it.
        pictures: numbers to expect the AP of.

    Raises:
        DataError: a number lies too far beyond what was measured.
    """
    try:
        report.curve = fit([int(r["pictures"]) for r in report.runs], [float(r["numbers"]["AP"]) for r in report.runs])
    except DataError as error:
        report.lines.insert(0, f"no learning curve: {error}")
        return
    said = [_expect(report, report.curve, number) for number in pictures]
    curve = report.curve
    report.lines[:0] = [f"learning curve: AP(n) = {curve.a:.3f} - {curve.b:.3g} n^-{curve.c:.2f}, n pictures", *said]


def _expect(report: Report, curve: PowerLaw, pictures: int) -> str:
    found = curve.at(pictures)
    report.predictions[pictures] = vars(found)
    more = pictures - curve.largest
    what = f"with {counted(pictures, 'image')}"
    if more > 0:
        what = f"with {more:,} more {'image' if more == 1 else 'images'} ({pictures:,} in all)"
    beyond = "" if more <= 0 else ", if the curve goes on as it did"
    return f"{what} expect AP {found.low:.3f} to {found.high:.3f} at this budget, mean over seeds{beyond}"


def write(report: Report, out: Path, settings: Mapping[str, Any]) -> None:
    """Write ``results.json`` and ``study.png``.

    Raises:
        OutputError: they cannot be written.
    """
    write_json(out / RESULTS_NAME, {"settings": settings, **report.to_dict()}, indent=1)
    title = "mean over seeds, 95 % over seeds and pictures"
    fractions = {cell.fraction for cell in report.cells}
    if len(fractions) == 1:
        series = {cell.arm: Series([_point(cell, place)]) for place, cell in enumerate(report.cells)}
        plot_intervals(series, out / PLOT_NAME, title=title, names=list(series))
    else:
        plot_intervals(_by_pictures(report), out / PLOT_NAME, title=title, xlabel="training pictures")


def _point(cell: Cell, x: float) -> tuple[float, float, float, float]:
    found = cell.over_both
    low, high = (found.mean if end is None else end for end in (found.low, found.high))
    return x, found.mean, low, high


def _by_pictures(report: Report) -> dict[str, Series]:
    series = {}
    for arm in dict.fromkeys(cell.arm for cell in report.cells):
        points = [_point(cell, cell.pictures) for cell in report.cells if cell.arm == arm]
        series[arm] = Series(points, _along(report.curve, points[0][0]) if report.curve else ())
    return series


def _along(curve: PowerLaw, smallest: float) -> list[tuple[float, float, float, float]]:
    """The curve from the fewest pictures measured to as far as it says anything."""
    numbers = np.geomspace(smallest, FARTHEST * curve.largest, ALONG)[:-1]
    found = [(float(n), curve.at(n)) for n in numbers]
    return [(n, one.mean, one.low or 0.0, one.high or 0.0) for n, one in found]


def show(report: Report, console: Console) -> None:
    """Print the table and the verdict."""
    console.print(report.table())
    for line in report.lines:
        console.print(line, markup=False, highlight=False)
