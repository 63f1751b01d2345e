"""Plots of the benchmarks, as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tldet.visualize.curves import IntervalSeries, draw_intervals, new_figure, save_figure, series_style


def plot_panels(panels: Mapping[str, Mapping[str, IntervalSeries]], out: Path, *, title: str, xlabel: str) -> Path:
    """Plot means with their intervals by a number, as :func:`plot_intervals`, in several panels with one legend.

    Args:
        panels: series by name, by the title of their panel; a name has the same color in all panels.
        out: output file, PNG.
        title: title of the plot.
        xlabel: label of the x axes.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(4 * columns, 3.2 * rows + 0.8)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    handles: dict[str, Any] = {}
    for axes, (heading, series) in zip(grid, panels.items(), strict=False):
        draw_intervals(axes, series, names)
        axes.set(title=heading, xlabel=f"{xlabel} (log scale)", ylabel="COCO AP (0 to 1)")
        lines, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    for axes in grid[len(panels) :]:
        axes.axis("off")
    shown = [handles[name] for name in names]
    figure.legend(shown, names, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title)
    return save_figure(figure, out)


def draw_growth(sides: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], out: Path) -> Path:
    """Plot the growth of time or memory with the amount of work, relative to the smallest amount.

    Args:
        sides: curves by unit, one plot each; each curve has a name and points (work, value) in ascending order.
        out: output file, PNG.
    """
    figure = new_figure(6 * len(sides), 5)
    for axes, (unit, curves) in zip(figure.subplots(1, len(sides), squeeze=False)[0], sides.items(), strict=True):
        most = max(points[-1][0] / points[0][0] for points in curves.values())
        axes.plot([1, most], [1, most], "k:", label="proportional")
        for number, (name, points) in enumerate(curves.items()):
            x, y = np.array(points, np.float64).T
            label = f"{name}: {y[0]:.3g} to {y[-1]:.3g}"
            axes.plot(x / x[0], y / max(y[0], 1e-9), **{**series_style(number), "markersize": 3}, label=label)
        axes.set(xscale="log", yscale="log", xlabel="amount of work (relative)", ylabel=f"{unit} (relative)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, title=unit, loc="upper left", bbox_to_anchor=(0, -0.15), frameon=False)
    return save_figure(figure, out)
