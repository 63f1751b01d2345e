"""Annotations of COCO's size and with 10 million objects: reading, reopening from the cache, memory of workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.annotations import IMAGES, QUICK_IMAGES, write_annotations
from benchmarks.child import in_child, in_children
from benchmarks.report import Suite
from benchmarks.suites import Bench

if TYPE_CHECKING:
    from rich.table import Table

MANY_IMAGES, QUICK_MANY = 1_380_000, 4_000  # 10 million objects
WORKERS = 4
MAX_READ = 118_287  # maximum number of images that the loader processes read
ROUNDS = 3


@dataclass(frozen=True)
class Measurement:
    """A value of tldet and, optionally, of pycocotools; ``unit`` is "s" or "MB"."""

    data: str
    name: str
    unit: str
    ours: float
    theirs: float | None = None


@dataclass
class Sizes(Suite):
    """Suite whose results are measurements."""

    measurements: list[Measurement] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {**super().to_dict(), "measurements": [vars(one) for one in self.measurements]}

    def table(self) -> Table:
        """Return the table of measurements."""
        from rich.table import Table

        shown = Table(title=f"{self.name}: medians; ratio: pycocotools / tldet", box=None, padding=(0, 1))
        for heading in ("annotations", "measurement", "tldet", "pycocotools", "ratio"):
            shown.add_column(heading, justify="left" if heading in ("annotations", "measurement") else "right")
        shown_data = ""
        for one in self.measurements:
            theirs, ratio = ("", "") if one.theirs is None else (f"{one.theirs:.3g}", f"{one.theirs / one.ours:.1f}")
            shown.add_row("" if one.data == shown_data else one.data, one.name, _value(one), theirs, ratio)
            shown_data = one.data
        return shown

    def notes(self) -> list[str]:
        """Return the lines below the table."""
        peak = "peak memory: of the process, imports included; the libraries take turns, each in a new process"
        cache = "reopening: compared with reading the file again with pycocotools, which has no cache"
        private = (
            f"private memory: anonymous memory that the dataset adds to one of {WORKERS} loader processes; maximum"
        )
        return [peak, cache, private, *super().notes()]


def run(bench: Bench) -> Suite:
    """Measure both sizes; pycocotools reads only the smaller file."""
    suite = Sizes("size")
    for images, peer in ((IMAGES, True), (MANY_IMAGES, False)):
        count = images if not bench.quick else QUICK_IMAGES if peer else QUICK_MANY
        suite.measurements += _measure(bench, count, peer=peer)
    return suite


def _measure(bench: Bench, images: int, *, peer: bool) -> Iterator[Measurement]:
    bench.show(f"writing annotations of {images:,} images")
    path, cache = bench.folder / f"size_{images}.json", bench.folder / f"size_cache_{images}"
    megabytes = write_annotations(path, images) / 1e6
    rounds = bench.rounds(ROUNDS) if peer else 1
    read: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        for side in ("ours", "theirs") if peer else ("ours",):
            bench.show(f"{images:,} images: {side}, round {number + 1} of {rounds}")
            fresh = cache if number == 0 else bench.folder / f"size_cache_{images}_{number}"
            read[side].append(_in_child(side, path, fresh))
    opened = [_in_child("ours", path, cache) for _ in range(rounds)]
    data = f"{images:,} images, {read['ours'][0]['boxes']:,} polygons, {megabytes:,.0f} MB"

    def both(key: str) -> list[float | None]:
        return [median(one[key] for one in read[side]) if read[side] else None for side in ("ours", "theirs")]

    yield Measurement(data, "first reading", "s", *both("seconds"))  # type: ignore[arg-type]
    yield Measurement(data, "peak memory of the first reading", "MB", *both("peak_mb"))  # type: ignore[arg-type]
    yield Measurement(
        data, "reopening from the cache", "s", median(one["seconds"] for one in opened), both("seconds")[1]
    )
    if sys.platform == "linux":
        bench.show(f"{images:,} images: {WORKERS} loader processes")
        used = _loader_processes(path, cache)
        yield Measurement(data, "private memory after opening", "MB", max(one["start"] for one in used))
        name = f"private memory after reading {min(images, MAX_READ):,} images"
        yield Measurement(data, name, "MB", max(one["end"] for one in used))
    path.unlink()


def _in_child(side: str, path: Path, cache: Path) -> dict[str, Any]:
    return in_child(f"benchmarks.annotations:{side}", {"TLDET_CACHE": str(cache)}, path=str(path))


def _loader_processes(path: Path, cache: Path) -> list[dict[str, float]]:
    """Read the images in processes that run at the same time; return the private memory in each, in MB."""
    arguments = [{"path": str(path), "worker": worker} for worker in range(WORKERS)]
    return in_children("benchmarks.size:loading", arguments, {"TLDET_CACHE": str(cache)})


def loading(path: str, worker: int) -> dict[str, float]:
    """Read all objects of the worker's images, with segmentations; return the private memory of the dataset in MB."""
    from tldet.data.index import AnnotationIndex

    before = _private_mb()
    index = AnnotationIndex.load(path)
    start, began = _private_mb(), perf_counter()
    for position in range(worker, min(len(index), MAX_READ), WORKERS):
        rows = index.rows(position)
        _ = index.file_names[position], index.boxes[rows].copy(), index.labels[rows].copy()
        _ = [index.segmentation(row) for row in range(rows.start, rows.stop)]
    return {"start": start - before, "end": _private_mb() - before, "seconds": perf_counter() - began}


def _private_mb() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def _value(one: Measurement) -> str:
    return f"{1e3 * one.ours:.3g} ms" if one.unit == "s" and one.ours < 1 else f"{one.ours:.3g} {one.unit}"
