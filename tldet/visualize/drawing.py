"""Drawing of boxes and masks on images, and plots of curves and intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from tldet.errors import DataError
from tldet.runtime.drawing import draw_objects
from tldet.structures.image import ImageArray
from tldet.structures.masks import windows
from tldet.system.output import replacing
from tldet.visualize.labels import paint
from tldet.visualize.page.plots import COLORS

if TYPE_CHECKING:
    from PIL.Image import Image

    from tldet.structures.detections import Detections

Drawable: TypeAlias = "ImageArray | Image | str | PathLike[str]"


def pixels_of(image: Drawable) -> ImageArray:
    """Return a new (H, W, 3) uint8 RGB array of an image: a path (rotated according to EXIF), a PIL image or an array.

    Raises:
        DataError: the file cannot be read, or the array has another shape or type.
    """
    from PIL import Image, ImageOps

    if isinstance(image, (str, PathLike)):
        try:
            with Image.open(image) as opened:
                image = ImageOps.exif_transpose(opened)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{image}: cannot be read as an image: {error}") from None
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8):
        shape = f"{getattr(image, 'dtype', '')} {tuple(getattr(image, 'shape', ()))}".strip()
        raise DataError(f"draw: image must be (H, W, 3) uint8 RGB, not {type(image).__name__} {shape}")
    return np.array(image, np.uint8)


def draw(image: Drawable, detections: Detections, *, scores: bool = True) -> ImageArray:
    """Draw boxes, masks and labels that avoid each other on a copy of an image; the best detection is on top.

    Args:
        image: a path, a PIL image or a (H, W, 3) uint8 RGB array.
        detections: the detections.
        scores: also write the scores.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the image cannot be read.
    """
    canvas = pixels_of(image)
    shapes = None
    if detections.masks is not None:
        shapes = windows(detections.masks[torch.arange(len(detections) - 1, -1, -1)])
    named = detections.labels.tolist(), detections.names(), detections.scores.tolist() if scores else None
    draw_objects(canvas, detections.boxes.cpu().numpy(), *named, shapes, paint)
    return canvas


def grid(images: Sequence[ImageArray], columns: int = 3, gap: int = 6) -> ImageArray:
    """Arrange images in a grid on white, each in a cell of the size of the largest image."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    rows = -(-len(images) // columns)
    shape = (rows * (height + gap) - gap, min(columns, len(images)) * (width + gap) - gap, 3)
    sheet = np.full(shape, 255, np.uint8)
    for number, image in enumerate(images):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    return sheet


def plot_curves(runs: dict[str, Path], out: Path) -> Path:
    """Plot loss and AP over the steps of one or more runs.

    Args:
        runs: path of ``log.jsonl`` by name.
        out: output file, PNG.
    """
    figure = _figure(10, 4)
    loss, ap = figure.subplots(1, 2)
    for number, (name, path) in enumerate(runs.items()):
        records: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        train = [r for r in records if r["type"] == "train"]
        val = [r for r in records if r["type"] == "val"]
        color = _shade(number)
        loss.plot([r["step"] for r in train], [r["loss"] for r in train], color=color, label=name)
        for key, style in (("AP50", "s--"), ("AP", "o-")):
            ap.plot([r["step"] for r in val], [r[key] for r in val], style, color=color, label=f"{name}, {key}")
    for axes, title, label in ((loss, "training loss", "loss"), (ap, "validation", "COCO AP (0 to 1)")):
        axes.set(title=title, xlabel="training step", ylabel=label)
        axes.grid(alpha=0.3)
    _legend(figure, ap)
    return _save(figure, out)


@dataclass(frozen=True)
class IntervalSeries:
    """Points with intervals, and optionally a fitted curve.

    Attributes:
        points: (x, mean, low, high) of each point.
        curve: (x, mean, low, high) along the fitted curve.
    """

    points: Sequence[tuple[float, float, float, float]]
    curve: Sequence[tuple[float, float, float, float]] = field(default=())


def plot_intervals(
    series: Mapping[str, IntervalSeries], out: Path, *, title: str, xlabel: str = "", names: Sequence[str] = ()
) -> Path:
    """Plot means with their intervals.

    Args:
        series: series by name.
        out: output file, PNG.
        title: title of the plot.
        xlabel: label of the x axis, which is logarithmic unless there are ``names``.
        names: labels of x = 0, 1, 2, ... on an axis of categories.
    """
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    for number, (name, one) in enumerate(series.items()):
        color = _shade(number)
        x, mean, low, high = np.array(one.points).T
        errors = np.maximum([mean - low, high - mean], 0)
        axes.errorbar(x, mean, errors, fmt="o" if names or one.curve else "o-", color=color, capsize=4, label=name)
        if one.curve:
            x, mean, low, high = np.array(one.curve).T
            axes.plot(x, mean, "--", color=color)
            axes.fill_between(x, low, high, color=color, alpha=0.2)
    if names:
        axes.set_xticks(range(len(names)), names)
        axes.margins(x=0.15)
    else:
        values = sorted({point[0] for one in series.values() for point in one.points})
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{x:g}" for x in values])
        axes.minorticks_off()
        _legend(figure, axes)
    axes.set(title=title, xlabel=xlabel, ylabel="COCO AP (0 to 1)")
    axes.grid(alpha=0.3)
    return _save(figure, out)


def draw_growth(sides: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], out: Path) -> Path:
    """Plot the growth of time or memory with the amount of work, relative to the smallest amount.

    Args:
        sides: curves by unit, one plot each; each curve has a name and points (work, value) in ascending order.
        out: output file, PNG.
    """
    figure = _figure(6 * len(sides), 5)
    for axes, (unit, curves) in zip(figure.subplots(1, len(sides), squeeze=False)[0], sides.items(), strict=True):
        most = max(points[-1][0] / points[0][0] for points in curves.values())
        axes.plot([1, most], [1, most], "k:", label="proportional")
        for number, (name, points) in enumerate(curves.items()):
            x, y = np.array(points, np.float64).T
            color = _shade(number)
            label = f"{name}: {y[0]:.3g} to {y[-1]:.3g}"
            axes.plot(x / x[0], y / max(y[0], 1e-9), "o-", color=color, label=label, markersize=3)
        axes.set(xscale="log", yscale="log", xlabel="amount of work (relative)", ylabel=f"{unit} (relative)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, title=unit, loc="upper left", bbox_to_anchor=(0, -0.15), frameon=False)
    return _save(figure, out)


def _shade(number: int) -> str:
    """Return the color of a curve, readable on white."""
    return COLORS[number % len(COLORS)]


def _legend(figure: Any, axes: Any, title: str | None = None) -> None:
    """Write the legend below the plot, where it covers no data."""
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False, title=title)


def _save(figure: Any, out: Path) -> Path:
    """Write a figure as PNG."""
    with replacing(out) as file:
        figure.savefig(file, format="png", dpi=110)
    return out


def _figure(width: float, height: float) -> Any:
    """Create a figure with a size in inches, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
