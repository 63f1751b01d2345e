"""Plots of training curves and of means with their intervals, as PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tldet.system.output import replacing
from tldet.visualize.page.plots import COLORS, DASHES, MARKERS


def plot_curves(runs: dict[str, Path], out: Path) -> Path:
    """Plot loss and AP over the steps of one or more runs.

    Args:
        runs: path of ``log.jsonl`` by name.
        out: output file, PNG.
    """
    figure = new_figure(10, 4)
    loss, ap = figure.subplots(1, 2)
    for number, (name, path) in enumerate(runs.items()):
        records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        train = [r for r in records if r["type"] == "train"]
        val = [r for r in records if r["type"] == "val"]
        style = series_style(number)
        loss.plot([r["step"] for r in train], [r["loss"] for r in train], **style, markevery=0.1, label=name)
        for key, dashes in (("AP50", "--"), ("AP", "-")):
            points = [r["step"] for r in val], [r[key] for r in val]
            ap.plot(*points, **{**style, "linestyle": dashes}, label=f"{name}, {key}")
    for axes, title, label in ((loss, "training loss", "loss"), (ap, "validation", "COCO AP (0 to 1)")):
        axes.set(title=title, xlabel="training step", ylabel=label)
        axes.grid(alpha=0.3)
    _legend(loss)
    _legend(ap)
    return save_figure(figure, out)


@dataclass(frozen=True)
class IntervalSeries:
    """Points with intervals, and optionally a fitted curve.

    Attributes:
        points: (x, mean, low, high) of each point.
        curve: (x, mean, low, high) along the fitted curve.
    """

    points: Sequence[tuple[float, float, float, float]]
    curve: Sequence[tuple[float, float, float, float]] = field(default=())


def plot_intervals(series: Mapping[str, IntervalSeries], out: Path, *, title: str, xlabel: str) -> Path:
    """Plot means with their intervals over a quantity, on a logarithmic axis.

    Args:
        series: series by name.
        out: output file, PNG.
        title: title of the plot.
        xlabel: label of the x axis.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    draw_intervals(axes, series, list(series))
    _legend(axes)
    axes.set(title=title, xlabel=f"{xlabel} (log scale)", ylabel="COCO AP (0 to 1)")
    return save_figure(figure, out)


def draw_intervals(axes: Any, series: Mapping[str, IntervalSeries], names: Sequence[str]) -> None:
    """Draw means with their intervals, and fitted curves, on a log x axis; ``names`` are in the order of the styles."""
    for name, one in series.items():
        style = series_style(names.index(name))
        x, mean, low, high = np.array(one.points).T
        errors = np.maximum([mean - low, high - mean], 0)
        line = {**style, "linestyle": "none"} if one.curve else style
        axes.errorbar(x, mean, errors, **line, capsize=4, label=name)
        if one.curve:
            x, mean, low, high = np.array(one.curve).T
            axes.plot(x, mean, **{**style, "marker": ""})
            axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
    values = {point[0] for one in series.values() for point in one.points}
    values |= {one.curve[-1][0] for one in series.values() if one.curve}
    axes.set_xscale("log")
    axes.set_xticks(sorted(values), [f"{x:,.0f}" if x >= 100 else f"{x:g}" for x in sorted(values)])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def plot_variants(points: Mapping[str, tuple[float, float, float]], out: Path, *, title: str) -> Path:
    """Plot the mean of each variant with its interval.

    Args:
        points: (mean, low, high) by name, from top to bottom.
        out: output file, PNG.
        title: title of the plot.
    """
    figure = new_figure(7, 1.6 + 0.34 * len(points))
    axes = figure.subplots()
    mean, low, high = np.array(list(points.values())).T
    rows = np.arange(len(points))
    errors = np.maximum([mean - low, high - mean], 0)
    axes.errorbar(mean, rows, xerr=errors, fmt="o", color=COLORS[0], capsize=4)
    for row, value in zip(rows.tolist(), mean.tolist(), strict=True):
        axes.annotate(f"{value:.3f}", (value, row), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(rows, list(points))
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.margins(x=0.08)
    figure.suptitle(title, fontsize=11)
    axes.set(xlabel="COCO AP (0 to 1)", ylabel="variant")
    axes.grid(alpha=0.3, axis="x")
    return save_figure(figure, out)


def series_style(number: int) -> dict[str, Any]:
    """Return color, dashes and marker of a curve, distinguishable in print and with color blindness."""
    named = (("color", COLORS), ("linestyle", DASHES), ("marker", MARKERS))
    return {"markersize": 6, **{key: values[number % len(values)] for key, values in named}}


def _legend(axes: Any) -> None:
    """Draw the legend below the axes, where it covers no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=8, frameon=False, handlelength=3.5)


def save_figure(figure: Any, out: Path) -> Path:
    """Write a figure as PNG."""
    with replacing(out) as file:
        figure.savefig(file, format="png", dpi=150)
    return out


def new_figure(width: float, height: float) -> Any:
    """Create a figure with a size in inches, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
