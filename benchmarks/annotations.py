"""Reading of a large COCO JSON, compared with pycocotools, each in a process of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.child import HOW, in_child
from benchmarks.report import Memory, Row
from benchmarks.suites import Bench

IMAGES, QUICK_IMAGES = 118_287, 2_000  # number of images in train2017
OBJECTS = 7.27  # per image, as in train2017
CLASSES = 80
POINTS = (6, 45)  # of a polygon


def reading_rows(bench: Bench) -> list[Row]:
    """Compare the first reading, and reading from the cache."""
    images = QUICK_IMAGES if bench.quick else IMAGES
    bench.show(f"writing annotations of {images} images")
    path = bench.folder / "instances.json"
    each = f"file of {images} images, {write_annotations(path, images) / 2**20:.0f} MB"
    warm = bench.folder / "cache"
    _read("ours", path, warm)
    fresh = (bench.folder / f"cache_{number}" for number in itertools.count())
    return [
        _row(bench, "annotations, first reading", path, fresh, each),
        _row(bench, "annotations, from the cache", path, itertools.repeat(warm), each),
    ]


def _row(bench: Bench, name: str, path: Path, caches: Iterator[Path], each: str) -> Row:
    peaks: dict[str, list[float]] = {"ours": [], "theirs": []}

    def side(which: str) -> float:
        done = _read(which, path, next(caches))
        peaks[which].append(done["peak_mb"])
        return float(done["seconds"])

    compared = bench.compare(name, lambda: side("ours"), lambda: side("theirs"), 3, warmup=0, self_timed=True)
    return Row(name, "pycocotools", compared, each, Memory(max(peaks["ours"]), max(peaks["theirs"]), HOW))


def _read(which: str, path: Path, cache: Path) -> dict[str, Any]:
    return in_child(f"benchmarks.annotations:{which}", {"TLDET_CACHE": str(cache)}, path=str(path))


def write_annotations(path: Path, images: int) -> int:
    """Write boxes and polygons like those of train2017; return the file size in bytes."""
    random = np.random.default_rng(0)
    counts = random.poisson(OBJECTS, images)
    shapes = [_polygon(random) for _ in range(500)]  # reused; only reading is timed
    categories = ", ".join(f'{{"id": {n}, "name": "class {n}", "supercategory": "x"}}' for n in range(1, CLASSES + 1))
    with path.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        for number in range(1, images + 1):
            name = f"{number:012d}.jpg"
            comma = ", " if number > 1 else ""
            file.write(f'{comma}{{"license": 1, "file_name": "{name}", "height": 480, "width": 640, "id": {number}}}')
        file.write(f'], "categories": [{categories}], "annotations": [')
        owners = np.repeat(np.arange(1, images + 1), counts).tolist()
        classes = random.integers(1, CLASSES + 1, len(owners)).tolist()
        chosen = random.integers(0, len(shapes), len(owners)).tolist()
        for number, (owner, category, shape) in enumerate(zip(owners, classes, chosen, strict=True), start=1):
            comma = ", " if number > 1 else ""
            file.write(f'{comma}{{{shapes[shape]}, "image_id": {owner}, "category_id": {category}, "id": {number}}}')
        file.write("]}")
    return path.stat().st_size


def _polygon(random: np.random.Generator) -> str:
    side = np.exp(random.uniform(np.log(10), np.log(300), 2))
    corner = random.uniform(0, 1, 2) * (np.array([640, 480]) - side)
    points = (corner + random.uniform(0, 1, (int(random.integers(*POINTS)), 2)) * side).round(2).ravel().tolist()
    box = [round(float(v), 2) for v in (*corner, *side)]
    return f'"segmentation": [{points}], "area": {box[2] * box[3] / 2:.4f}, "iscrowd": 0, "bbox": {box}'


def ours(path: str) -> dict[str, Any]:
    """Read with tldet."""
    from tldet.data.index import AnnotationIndex

    start = perf_counter()
    index = AnnotationIndex.load(path)
    return {"seconds": perf_counter() - start, "boxes": len(index.boxes)}


def theirs(path: str) -> dict[str, Any]:
    """Read with pycocotools."""
    from pycocotools.coco import COCO

    start = perf_counter()
    coco = COCO(path)
    return {"seconds": perf_counter() - start, "boxes": len(coco.anns)}
