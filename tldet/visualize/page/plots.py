"""Plots of a report, drawn by matplotlib as SVG and PNG.

The colors are the ones of Okabe and Ito 2008 that are readable on white. For black-and-white prints, lines also have
different dash patterns or markers, and bars different hatches.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

Values = Sequence[Any] | NDArray[Any]
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# The lengths have no common divisor, so that styles do not repeat after the last color.
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (10, 3)), (0, (1, 4)))
HATCHES = ("", "///", "...", "xxx", "---", "\\\\\\", "ooo", "+++", "|||", "**", "//..")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_INK = "#01020a"  # text and axes; the color of the text on a page
_HATCH = "#ffffff"
_SIZE = (4.4, 3.3)  # inches, so that text is readable on a narrow display
_BARS, _LABELED = 12, 25  # maximum number of bars, and of labeled matrix rows, at the normal size
_DPI = 160


@dataclass(frozen=True)
class Series:
    """A line, points or bars of a plot.

    Attributes:
        name: name in the legend; "" for none.
        x: positions, or names of bars.
        y: values; NaN for a gap.
        low: lower ends of intervals.
        high: upper ends.
        marker: marker of the points; "" for none.
    """

    name: str
    x: Values
    y: Values
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marker: str = ""


@dataclass(frozen=True)
class Plot:
    """A plot as data.

    Attributes:
        name: file name without extension.
        title: heading above the plot.
        xlabel: label of the x axis, with its unit.
        ylabel: label of the y axis, with its unit.
        kind: "lines", "bars" (horizontal, by name) or "matrix" (one series for each row).
        series: the content.
        xlim: limits of the x axis.
        ylim: limits of the y axis.
        note: explanation below the plot.
    """

    name: str
    title: str
    xlabel: str
    ylabel: str
    series: Sequence[Series]
    kind: Literal["lines", "bars", "matrix"] = "lines"
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    note: str = ""


def svg(plot: Plot, *, page: bool = False) -> str:
    """Return a plot as SVG.

    Args:
        plot: the plot.
        page: True for an SVG inside an HTML page: no XML header, colors of the style sheet, and unique ids.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
        _figure([plot]).savefig(file, format="svg", transparent=page, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return _for_page(text, plot) if page else text.replace(_INK, "#000000")


def png(*plots: Plot) -> bytes:
    """Return plots as PNG; several stand side by side, with their titles."""
    file = io.BytesIO()
    _figure(plots).savefig(file, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def _for_page(text: str, plot: Plot) -> str:
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    for number, color in enumerate(COLORS):
        text = text.replace(color, f"var(--series{number})")
    prefix = re.sub(r"\W", "-", plot.name)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="|url\()#', rf"\g<1>#{prefix}-", text)
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*"', r'<svg role="img" \1', re.sub(r' height="[\d.]+pt"', "", text, count=1), count=1
    )


def _figure(plots: Sequence[Plot]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    widths, heights = zip(*(_size(plot) for plot in plots), strict=True)
    figure = Figure(figsize=(sum(widths), max(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    if len(plots) == 1:
        _draw(figure, plots[0])
        return figure
    parts = figure.subfigures(1, len(plots), width_ratios=widths, squeeze=False)[0]
    for part, plot in zip(parts, plots, strict=True):
        part.suptitle(plot.title, fontsize=10, color=_INK)
        _draw(part, plot)
    return figure


def _draw(figure: Any, plot: Plot) -> None:
    """Draw a plot in an empty figure or part of one."""
    axes = figure.subplots()
    {"lines": _lines, "bars": _bars, "matrix": _matrix}[plot.kind](axes, plot)
    _paint(axes, plot)
    names = [one for one in plot.series if one.name]
    if plot.kind != "matrix" and len(names) > 1:
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, labelcolor=_INK)


def _size(plot: Plot) -> tuple[float, float]:
    count = len(plot.series) if plot.kind == "matrix" else len(plot.series[0].x) if plot.kind == "bars" else 0
    if plot.kind == "matrix":
        side = max(_SIZE[0], 1.6 + 0.24 * count) if count <= _LABELED else 5.0
        return side, side * 0.92
    return _SIZE[0], _SIZE[1] if count <= _BARS else _SIZE[1] * count / _BARS


def _lines(axes: Any, plot: Plot) -> None:
    for number, one in enumerate(plot.series):
        style = {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number % len(DASHES)]}
        repeated = number >= len(DASHES)
        marker = {"marker": MARKERS[number % len(MARKERS)], "markevery": 0.1} if repeated else {"marker": one.marker}
        axes.plot(one.x, one.y, **style, **marker, markersize=4, linewidth=1.6, label=one.name)
        if len(one.low):
            axes.fill_between(one.x, one.low, one.high, color=style["color"], alpha=0.2, linewidth=0)
    axes.grid(alpha=0.25, color=_INK, linewidth=0.5)


def _bars(axes: Any, plot: Plot) -> None:
    height = 0.8 / len(plot.series)
    for number, one in enumerate(plot.series):
        positions = [row + (number - (len(plot.series) - 1) / 2) * height for row in range(len(one.x))]
        style = {"color": COLORS[number % len(COLORS)], "hatch": HATCHES[number % len(HATCHES)], "hatchcolor": _HATCH}
        axes.barh(positions, one.y, height * 0.9, linewidth=0, label=one.name, **style)
        if len(one.low):
            spread = [
                [max(a - b, 0) for a, b in zip(*ends, strict=True)] for ends in ((one.y, one.low), (one.high, one.y))
            ]
            axes.errorbar(one.y, positions, xerr=spread, fmt="none", ecolor=_INK, elinewidth=1, capsize=2)
        elif len(plot.series) == 1:
            axes.bar_label(axes.containers[0], fmt="%.3f", padding=3, fontsize=8, color=_INK)
            axes.margins(x=0.16)
    names = plot.series[0].x
    axes.set_yticks(range(len(names)), [_cut(str(name)) for name in names])
    axes.invert_yaxis()
    axes.grid(alpha=0.25, color=_INK, linewidth=0.5, axis="x")


def _matrix(axes: Any, plot: Plot) -> None:
    rows = [list(one.y) for one in plot.series]
    names, columns = [one.name for one in plot.series], [str(x) for x in plot.series[0].x]
    image = axes.imshow(rows, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.8)
    bar.ax.tick_params(colors=_INK, labelsize=8)
    bar.set_label("fraction of the row (0 to 1)", color=_INK, fontsize=8)
    if len(names) <= _LABELED:
        axes.set_xticks(range(len(columns)), [_cut(name) for name in columns], rotation=90)
        axes.set_yticks(range(len(names)), [_cut(name) for name in names])
    if len(names) <= 8:
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                color = "#ffffff" if value > 0.5 else "#10141a"
                axes.text(x, y, f"{value:.2f}" if value == value else "", ha="center", va="center", color=color, size=8)


def _paint(axes: Any, plot: Plot) -> None:
    """Set labels and limits, and the color of axes and text."""
    axes.set_xlabel(plot.xlabel, color=_INK, fontsize=9)
    axes.set_ylabel(plot.ylabel, color=_INK, fontsize=9)
    axes.tick_params(colors=_INK, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(_INK)
        spine.set_linewidth(0.6)
    if plot.xlim:
        axes.set_xlim(*plot.xlim)
    if plot.ylim:
        axes.set_ylim(*plot.ylim)


def _cut(name: str, length: int = 18) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
