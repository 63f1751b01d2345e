"""Plots as text, for terminals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII = "  ...:::#"  # in eighths of a row, as _BLOCKS
_LABEL = 8  # characters of the values beside a plot
_MOST = 1e300  # largest absolute value plotted, so that differences are finite
LEAST_WIDTH = _LABEL + 12


def text_plot(x: Sequence[float], y: Sequence[float], *, width: int, height: int, blocks: bool = True) -> list[str]:
    """Plot values as columns, with the range of y on the left and that of x below.

    Args:
        x: positions.
        y: values; NaN and absolute values above 1e300 are omitted.
        width: characters per line, at least ``LEAST_WIDTH``.
        height: lines, not counting that of the x axis.
        blocks: draw eighths of a line with block characters; False for ASCII.

    Returns:
        height + 1 lines; none without values.
    """
    points = sorted((float(a), float(b)) for a, b in zip(x, y, strict=True) if abs(b) <= _MOST)
    if not points:
        return []
    columns = max(width, LEAST_WIDTH) - _LABEL - 1
    values = _columns(points, columns)
    low, high = float(values.min()), float(values.max())
    levels = np.full(columns, 4 * height) if high <= low else 1 + (values - low) / (high - low) * (8 * height - 1)
    characters = _BLOCKS if blocks else _ASCII
    labels = {0: _number(high), height - 1: _number(low)} if high > low else {height // 2: _number(low)}
    lines = []
    for row in range(height):
        filled = np.clip(np.round(levels) - 8 * (height - 1 - row), 0, 8).astype(int)
        lines.append(f"{labels.get(row, ''):>{_LABEL}} {''.join(characters[n] for n in filled)}")
    first, last = f"{points[0][0]:g}", f"{points[-1][0]:g}"
    return [*lines, f"{'':{_LABEL}} {first}{last:>{columns - len(first)}}"]


def _columns(points: Sequence[tuple[float, float]], columns: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a value for each column: the mean of its points, or interpolated from the neighboring columns."""
    x, y = np.array(points, np.float64).T
    span = max(x[-1] - x[0], 1e-9)
    rows = np.minimum(((x - x[0]) / span * columns).astype(int), columns - 1)
    counts = np.bincount(rows, minlength=columns)
    filled = np.flatnonzero(counts)
    means = np.bincount(rows, y, minlength=columns)[filled] / counts[filled]
    return np.asarray(np.interp(np.arange(columns), filled, means), np.float64)


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return text if len(text) <= _LABEL else f"{value:.0e}"
