"""Plots of pages, runs, studies and benchmarks: labeled axes, no legend over data, styles that differ without color."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from benchmarks import plots as benchmark_plots
from tldet.visualize import curves
from tldet.visualize.curves import IntervalSeries
from tldet.visualize.page import plots
from tldet.visualize.page.plots import Plot, Series

NUMBER = 10  # series in a plot
NAMES = [f"series {number}" for number in range(NUMBER)]
POINTS = [(10.0, 0.3, 0.2, 0.35), (40.0, 0.5, 0.45, 0.55)]


def page_plot(kind: Any) -> Plot:
    """Return a plot of a page."""
    x = ["a", "b", "c"] if kind != "lines" else [0, 1, 2]
    return Plot("p", "title", "x (px)", "y (0 to 1)", [Series(name, x, [0.2, 0.5, 1]) for name in NAMES], kind)


def training_log(folder: Path) -> dict[str, Path]:
    records = [{"type": "train", "step": 1, "loss": 2.0}, {"type": "val", "step": 1, "AP": 0.1, "AP50": 0.2}]
    (folder / "log.jsonl").write_text("\n".join(json.dumps(one) for one in records))
    return dict.fromkeys(NAMES, folder / "log.jsonl")


FIGURES = {
    "lines": lambda _: plots._figure([page_plot("lines")]),
    "bars": lambda _: plots._figure([page_plot("bars")]),
    "matrix": lambda _: plots._figure([page_plot("matrix")]),
    "side by side": lambda _: plots._figure([page_plot("lines"), page_plot("bars")]),
    "runs": lambda folder: curves.plot_curves(training_log(folder), folder / "x.png"),
    "amounts": lambda folder: curves.plot_intervals(
        {name: IntervalSeries(POINTS, POINTS) for name in NAMES}, folder / "x.png", title="t", xlabel="images"
    ),
    "variants": lambda folder: curves.plot_variants(dict.fromkeys(NAMES, (0.3, 0.2, 0.4)), folder / "x.png", title="t"),
    "panels": lambda folder: benchmark_plots.plot_panels(
        {"one": {name: IntervalSeries(POINTS) for name in NAMES}, "two": {NAMES[0]: IntervalSeries(POINTS)}},
        folder / "x.png",
        title="t",
        xlabel="images",
    ),
    "growth": lambda folder: benchmark_plots.draw_growth(
        {unit: {name: [(1, 1), (10, 12)] for name in NAMES} for unit in ("seconds", "MB")}, folder / "x.png"
    ),
}


@pytest.fixture(params=FIGURES)
def figure(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each figure, drawn."""
    for module in (curves, benchmark_plots):
        monkeypatch.setattr(module, "save_figure", lambda figure, _: figure)
    drawn = FIGURES[request.param](tmp_path)
    drawn.canvas.draw()
    return drawn


def all_legends(figure: Any) -> list[Any]:
    parts = [figure, *figure.subfigs]
    return [legend for part in parts for legend in part.legends] + [
        axes.get_legend() for axes in figure.axes if axes.get_legend()
    ]


def test_no_legend_lies_over_axes(figure: Any) -> None:
    legends = [legend.get_window_extent() for legend in all_legends(figure)]
    axes = [one.get_window_extent() for one in figure.axes if one.axison]
    assert [(a, b) for a in legends for b in axes if a.overlaps(b)] == []
    width, height = figure.canvas.get_width_height()
    outside = [a for a in legends if a.x0 < -1 or a.y0 < -1 or a.x1 > width + 1 or a.y1 > height + 1]
    assert outside == [], "cut off"


def test_all_axes_are_labeled(figure: Any) -> None:
    assert all(axes.get_ylabel() for axes in figure.axes)
    assert all(axes.get_xlabel() for axes in figure.axes if axes.get_label() != "<colorbar>")


def lightness(color: Any) -> float:
    """Return CIE L*, 0 to 100."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    y = float(np.dot([0.2126, 0.7152, 0.0722], linear))
    return 116 * np.cbrt(y) - 16 if y > 0.008856 else 903.3 * y


def styles(axes: Any) -> dict[str, tuple[Any, float]]:
    """Return pattern and lightness of each named line and group of bars."""
    found: dict[str, tuple[Any, float]] = {}
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
        one = handle[0] if len(getattr(handle, "patches", ()) or ()) or hasattr(handle, "lines") else handle
        if hasattr(one, "get_hatch"):
            found[name] = (one.get_hatch(), lightness(one.get_facecolor()[:3]))
        else:
            pattern = (one.get_linestyle(), str(getattr(one, "_unscaled_dash_pattern", "")), one.get_marker())
            found[name] = (pattern, lightness(one.get_color()))
    return found


def test_styles_differ_in_gray(figure: Any) -> None:
    for axes in figure.axes:
        for (a, one), (b, other) in combinations(styles(axes).items(), 2):
            assert one[0] != other[0] or abs(one[1] - other[1]) > 15, (a, b)


def test_the_color_scale_of_a_matrix_is_labeled() -> None:
    (bar,) = [axes for axes in plots._figure([page_plot("matrix")]).axes if axes.get_label() == "<colorbar>"]
    assert bar.get_ylabel() == "fraction of the row (0 to 1)"


def test_training_curves_of_a_two_stage_detector() -> None:
    """Six losses and the validation loss."""
    series = [Series(name, [0, 1], [1, 0]) for name in NAMES[:6]] + [Series("val_loss", [0, 1], [1, 0], marker="o")]
    (axes,) = plots._figure([Plot("p", "t", "step", "loss", series)]).axes
    for (a, one), (b, other) in combinations(styles(axes).items(), 2):
        assert one[0] != other[0] or abs(one[1] - other[1]) > 15, (a, b)
