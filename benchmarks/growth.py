"""Growth of time and memory with image size, batch size, objects, classes and dataset size.

Each point is measured in a process of its own. A slope above 1 in the log-log plot means growth faster than linear.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.child import in_child
from benchmarks.report import Suite
from benchmarks.suites import Bench
from benchmarks.timing import Times

if TYPE_CHECKING:
    from rich.table import Table

MODELS = ("faster_rcnn_lite0", "fcos_lite0")
SIZE, QUICK_SIZE, BATCH = (320, 427), (64, 96), 2
FEW_MB = 30.0  # smaller amounts depend on the allocator
ROUNDS = 5


@dataclass(frozen=True)
class Axis:
    """Quantity that grows.

    Attributes:
        name: name of the curve.
        counts: unit of x; the work is proportional to x.
        points: values of x.
        quick: values of x of a quick run.
    """

    name: str
    counts: str
    points: tuple[int, ...]
    quick: tuple[int, ...]

    def arguments(self, n: int, size: tuple[int, int]) -> dict[str, Any]:
        """Return the arguments of :func:`predicting` or :func:`training` at x = ``n``."""
        if self.name == "predicting":
            side = round(n**0.5)
            return {"size": [side, side]}
        given = {"size": list(size), "count": BATCH, "objects": 8, "classes": 80}
        return {**given, {"batch": "count"}.get(self.name, self.name): n}


AXES = (
    Axis("predicting", "pixels of the image", tuple(n * n for n in (160, 320, 640, 1280)), (64 * 64, 96 * 96)),
    Axis("batch", "images in a training step", (1, 2, 4, 8, 16), (1, 2)),
    Axis("objects", "objects on each of 2 images in a training step", (1, 10, 100, 1000), (1, 10)),
    Axis("classes", "classes of the detector, a training step", (1, 10, 100, 1000), (1, 10)),
)
READING = Axis("reading", "images in the annotations", (1_000, 10_000, 100_000), (50, 100))


@dataclass(frozen=True)
class Point:
    """One measurement: seconds, and the additional memory in MB."""

    x: int
    seconds: Times
    memory_mb: float


@dataclass(frozen=True)
class Curve:
    """Points in ascending order of x."""

    name: str
    counts: str
    points: tuple[Point, ...]

    def steepest(self, value: Callable[[Point], float], least: float = 0.0) -> float:
        """Return the largest slope between neighbors in the log-log plot; values below ``least`` count as ``least``."""
        slopes = [
            math.log(max(value(b), least) / max(value(a), least)) / math.log(b.x / a.x)
            for a, b in pairwise(self.points)
        ]
        return max(slopes)

    @property
    def of_time(self) -> float:
        """Largest slope of the median time."""
        return self.steepest(lambda point: point.seconds.median)

    @property
    def of_memory(self) -> float:
        """Largest slope of memory."""
        return self.steepest(lambda point: point.memory_mb, FEW_MB)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        points = [{"x": p.x, "seconds": p.seconds.to_dict(), "memory_mb": p.memory_mb} for p in self.points]
        slopes = {"time": self.of_time, "memory": self.of_memory}
        return {"name": self.name, "counts": self.counts, "points": points, "steepest": slopes}


@dataclass
class Growth(Suite):
    """Suite with curves instead of rows."""

    curves: list[Curve] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {**super().to_dict(), "curves": [curve.to_dict() for curve in self.curves]}

    def table(self) -> Table:
        """Return the table of end points and slopes."""
        from rich.table import Table

        shown = Table(title=f"{self.name}: a slope of 1 is linear growth")
        for heading in ("quantity", "from - to", "time", "slope", "MB", "slope"):
            shown.add_column(heading, justify="left" if heading == "quantity" else "right", overflow="fold")
        for curve in self.curves:
            first, last = curve.points[0], curve.points[-1]
            times = f"{1e3 * first.seconds.median:.3g} - {1e3 * last.seconds.median:.3g} ms"
            memory = f"{first.memory_mb:.0f} - {last.memory_mb:.0f}"
            ends = f"{first.x:,} - {last.x:,}"
            name, slopes = f"{curve.name}: {curve.counts}", (f"{curve.of_time:.2f}", f"{curve.of_memory:.2f}")
            shown.add_row(name, ends, times, slopes[0], memory, slopes[1])
        return shown

    def draw(self, path: Path) -> Path | None:
        """Plot time and memory."""
        from benchmarks.plots import draw_growth

        seconds = {c.name: [(p.x, p.seconds.median) for p in c.points] for c in self.curves}
        memory = {c.name: [(p.x, p.memory_mb) for p in c.points] for c in self.curves}
        return draw_growth({"seconds": seconds, "MB": memory}, path)


def run(bench: Bench) -> Suite:
    """Measure every axis for every detector, and reading of annotations."""
    size = bench.size or (QUICK_SIZE if bench.quick else SIZE)
    suite = Growth("growth")
    for model in bench.models or MODELS:
        for axis in AXES:
            suite.curves.append(_curve(bench, axis, f"{model}, {axis.name}", _model_point(bench, axis, model, size)))
    suite.curves.append(_curve(bench, READING, READING.name, _reading_point(bench)))
    return suite


def _curve(bench: Bench, axis: Axis, name: str, measure: Callable[[int], dict[str, Any]]) -> Curve:
    points = []
    for x in axis.quick if bench.quick else axis.points:
        bench.show(f"{name}: {x:,}")
        found = measure(x)
        points.append(Point(x, Times(tuple(found["seconds"])), found["peak_mb"] - found["before_mb"]))
    return Curve(name, axis.counts, tuple(points))


def _model_point(bench: Bench, axis: Axis, model: str, size: tuple[int, int]) -> Callable[[int], dict[str, Any]]:
    kind = "predicting" if axis.name == "predicting" else "training"

    def measure(x: int) -> dict[str, Any]:
        given = axis.arguments(x, size)
        return in_child(f"benchmarks.growth:{kind}", recipe=model, rounds=bench.rounds(ROUNDS), **given)

    return measure


def _reading_point(bench: Bench) -> Callable[[int], dict[str, Any]]:
    from benchmarks.annotations import write_annotations

    def measure(x: int) -> dict[str, Any]:
        path = bench.folder / f"growth_{x}.json"
        write_annotations(path, x)
        cache = {"TLDET_CACHE": str(bench.folder / f"growth_{x}")}
        return in_child("benchmarks.growth:reading", cache, path=str(path))

    return measure


def predicting(recipe: str, size: list[int], rounds: int) -> dict[str, Any]:
    """Time prediction on one image."""
    from benchmarks.infer import random_image
    from tldet.inference.predictor import Predictor

    model = _detector(recipe, 80).eval()
    image = random_image((size[0], size[1]), 0)
    predictor = Predictor(model, (), short=min(size), long=max(size), precision=_precision())
    return _timed(lambda: predictor.predict(image), rounds)


def training(recipe: str, size: list[int], count: int, objects: int, classes: int, rounds: int) -> dict[str, Any]:
    """Time training steps."""
    from benchmarks.train import make_batch, our_step
    from tldet.models.surgery.frozen_norms import fold_frozen_norms

    model = _detector(recipe, classes)
    fold_frozen_norms(model.backbone.freeze())
    batch = make_batch((size[0], size[1]), count, objects=objects, classes=classes)
    return _timed(our_step(model, batch, _precision()), rounds)


def reading(path: str) -> dict[str, Any]:
    """Time the first reading of a COCO JSON."""
    from tldet.data.index import AnnotationIndex
    from tldet.system.memory import peak_mb

    before = peak_mb()
    start = time.perf_counter()
    AnnotationIndex.load(path)
    return {"seconds": [time.perf_counter() - start], "before_mb": before}


def _detector(recipe: str, classes: int) -> Any:
    from benchmarks.pairs import spread_weights
    from tldet.config import read_config
    from tldet.models.detector import build_detector

    options: dict[str, Any] = {"model.head.num_classes": classes, "model.backbone.weights": None}
    model = build_detector(read_config(recipe, options)["model"])
    spread_weights(model)
    return model


def _precision() -> Any:
    from tldet.engine.precision import Precision
    from tldet.system.device import cpu_has_bf16

    return Precision("bf16" if cpu_has_bf16() else "fp32", reason="the same at every point")


def _timed(call: Callable[[], object], rounds: int) -> dict[str, Any]:
    from tldet.cli.process import keep_freed_memory
    from tldet.system.memory import peak_mb

    keep_freed_memory()
    before, seconds = peak_mb(), []
    for number in range(rounds + 1):
        start = time.perf_counter()
        call()
        if number:
            seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "before_mb": before}
