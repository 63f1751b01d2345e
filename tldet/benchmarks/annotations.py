"""Reading a large COCO JSON, beside pycocotools, each time in a process of its own."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tldet.benchmarks.child import HOW, in_child
from tldet.benchmarks.report import Memory, Row
from tldet.benchmarks.suites import Bench

PICTURES, QUICK_PICTURES = 118_287, 2_000  # train2017 has so many
OBJECTS = 7.27  # a picture, as in train2017
CLASSES = 80
POINTS = (6, 45)  # of a polygon


def reading_rows(bench: Bench) -> list[Row]:
    """The first time, and again from the cache."""
    pictures = QUICK_PICTURES if bench.quick else PICTURES
    bench.tell(f"writing annotations of {pictures} pictures")
    path = bench.folder / "instances.json"
    size = write_annotations(path, pictures)
    rows = []
    numbers = iter(range(1000))
    warm = str(bench.folder / "cache")
    in_child("tldet.benchmarks.annotations:ours", {"TLDET_CACHE": warm}, path=str(path))
    for name in ("first time", "from the cache"):
        peaks: dict[str, list[float]] = {"ours": [], "theirs": []}

        def side(which: str, name: str = name, peaks: dict[str, list[float]] = peaks) -> float:
            cache = warm if name == "from the cache" else str(bench.folder / f"cache_{next(numbers)}")
            done = in_child(f"tldet.benchmarks.annotations:{which}", {"TLDET_CACHE": cache}, path=str(path))
            peaks[which].append(done["peak_mb"])
            return float(done["seconds"])

        compared = bench.compare(
            f"annotations, {name}", lambda s=side: s("ours"), lambda s=side: s("theirs"), 3, warmup=0, self_timed=True
        )
        memory = Memory(max(peaks["ours"]), max(peaks["theirs"]), HOW)
        each = f"file of {pictures} pictures, {size / 2**20:.0f} MB"
        rows.append(Row(f"annotations {name}", "pycocotools", compared, each, memory))
    return rows


def write_annotations(path: Path, pictures: int) -> int:
    """Write boxes and polygons as train2017 has them, the same each time; returns the bytes."""
    random = np.random.default_rng(0)
    counts = random.poisson(OBJECTS, pictures)
    shapes = [_polygon(random) for _ in range(500)]  # each used many times: only the reading is measured
    categories = ", ".join(f'{{"id": {n}, "name": "class {n}", "supercategory": "x"}}' for n in range(1, CLASSES + 1))
    with path.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        for number in range(1, pictures + 1):
            name = f"{number:012d}.jpg"
            comma = ", " if number > 1 else ""
            file.write(f'{comma}{{"license": 1, "file_name": "{name}", "height": 480, "width": 640, "id": {number}}}')
        file.write(f'], "categories": [{categories}], "annotations": [')
        owners = np.repeat(np.arange(1, pictures + 1), counts).tolist()
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
    """The arrays of every box, in a process of its own."""
    from tldet.data.index import AnnotationIndex

    start = perf_counter()
    index = AnnotationIndex.load(path)
    return {"seconds": perf_counter() - start, "boxes": len(index.boxes)}


def theirs(path: str) -> dict[str, Any]:
    """pycocotools' index."""
    from pycocotools.coco import COCO

    start = perf_counter()
    coco = COCO(path)
    return {"seconds": perf_counter() - start, "boxes": len(coco.anns)}
