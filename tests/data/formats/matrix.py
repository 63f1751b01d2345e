"""Conversion of each format to each and back, as a table: ``python -m tests.data.formats.matrix``."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tests.data.formats.made import WRITERS, make
from tests.data.formats.twins import boxes_of, prepared
from tldet.data.formats.records import Dataset
from tldet.workflows.command_requests import CONVERT_TARGETS
from tldet.workflows.convert import convert


def difference(one: Dataset, other: Dataset) -> float:
    """Return the largest difference of two corners in pixels; infinity if the objects differ."""
    a, b = boxes_of(one), boxes_of(other)
    if {key: len(boxes) for key, boxes in a.items()} != {key: len(boxes) for key, boxes in b.items()}:
        return float("inf")
    return max(float(np.abs(np.subtract(boxes, b[key])).max()) for key, boxes in a.items())


def matrix(folder: Path) -> list[tuple[str, str, float, float]]:
    """Return format, target, the largest difference in pixels there, and back again through COCO JSON."""
    rows = []
    for name in WRITERS:
        source = prepared(make(folder / name, name))
        for target in CONVERT_TARGETS:
            there = folder / f"{name}_{target}"
            convert(folder / name, to=target, out=there)
            back_format = name if name in CONVERT_TARGETS else "coco"
            back = folder / f"{name}_{target}_{back_format}"
            convert(there, to=back_format, out=back)
            rows.append((name, target, difference(source, prepared(there)), difference(source, prepared(back))))
    return rows


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'from':14}{'to':8}{'there, px':>12}{'and back, px':>14}")  # noqa: T201
        for name, target, there, back in matrix(Path(folder)):
            print(f"{name:14}{target:8}{there:12.1e}{back:14.1e}")  # noqa: T201


if __name__ == "__main__":
    main()
