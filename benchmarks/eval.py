"""COCO metrics of many detections, compared with pycocotools, from the same files in separate processes."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.child import HOW, in_child
from benchmarks.report import Memory, Row, Suite
from benchmarks.suites import Bench
from benchmarks.timing import Comparison, Times
from tldet.evaluation.report import METRICS

IMAGES, QUICK_IMAGES = 5000, 200
FOUND = 100  # detections per image
OBJECTS = 7
CLASSES = 80
SIZE = (480, 640)


def run(bench: Bench) -> Suite:
    """Compare reading and evaluation, and evaluation alone."""
    count = QUICK_IMAGES if bench.quick else IMAGES
    bench.show(f"writing {count * FOUND} detections on {count} images")
    gt, dt = write_files(bench.folder, count)
    results: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}

    def side(name: str) -> float:
        results[name].append(in_child(f"benchmarks.eval:{name}", gt=str(gt), dt=str(dt)))
        return float(results[name][-1]["load"] + results[name][-1]["score"])

    whole = bench.compare("eval", lambda: side("ours"), lambda: side("theirs"), 3, warmup=0, self_timed=True)
    ours, theirs = results["ours"], results["theirs"]
    same = all(one["numbers"] == ours[0]["numbers"] for one in [*ours, *theirs])
    peaks = Memory(max(o["peak_mb"] for o in ours), max(t["peak_mb"] for t in theirs), HOW)
    checks = {"metrics bit-identical": same, "AP": ours[0]["numbers"][0]}
    each = f"{count * FOUND} detections on {count} images"
    alone = Comparison(*(Times(tuple(one["score"] for one in one_side)) for one_side in (ours, theirs)))
    rows = [
        Row("reading and evaluation", "pycocotools", whole, each, peaks, checks=checks),
        Row("evaluation alone", "pycocotools", alone, each),
    ]
    return Suite("eval", rows)


def write_files(folder: Path, count_images: int) -> tuple[Path, Path]:
    """Write ground truth and detections, a third of which are near an object."""
    random = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, count in enumerate(random.poisson(OBJECTS, count_images).tolist(), start=1):
        images.append({"id": number, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]})
        boxes, classes = _boxes(random, count), random.integers(1, CLASSES + 1, count)
        crowd = random.random(count) < 0.01
        for box, category, many in zip(boxes.round(2).tolist(), classes.tolist(), crowd.tolist(), strict=True):
            annotations.append(_annotation(len(annotations) + 1, number, category, box, many))
        near = random.integers(0, count, FOUND // 3) if count else np.zeros(0, np.int64)
        moved = boxes[near] + random.normal(0, 0.08, (len(near), 4)) * boxes[near][:, [2, 3, 2, 3]]
        found = np.concatenate([moved, _boxes(random, FOUND - len(near))]).round(2)
        found[:, 2:] = found[:, 2:].clip(1)
        labels = np.concatenate([classes[near], random.integers(1, CLASSES + 1, FOUND - len(near))])
        scores = random.beta(1, 6, FOUND).round(5)
        for box, category, score in zip(found.tolist(), labels.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": number, "category_id": category, "bbox": box, "score": score})
    categories = [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)]
    gt, dt = folder / "gt.json", folder / "dt.json"
    whole = {"images": images, "annotations": annotations, "categories": categories}
    gt.write_text(json.dumps(whole), encoding="utf-8")
    dt.write_text(json.dumps(results), encoding="utf-8")
    return gt, dt


def _boxes(random: np.random.Generator, count: int) -> Any:
    """Return random boxes (N, 4) xywh inside the image."""
    side = np.exp(random.uniform(np.log(8), np.log(300), (count, 2)))
    corner = random.uniform(0, 1, (count, 2)) * (np.array([SIZE[1], SIZE[0]]) - side)
    return np.concatenate([corner, side], 1)


def _annotation(number: int, image: int, category: int, box: list[float], crowd: bool) -> dict[str, Any]:
    owner = {"id": number, "image_id": image, "category_id": category}
    return {**owner, "bbox": box, "area": box[2] * box[3], "iscrowd": int(crowd)}


def ours(gt: str, dt: str) -> dict[str, Any]:
    """Evaluate with tldet (hotcoco)."""
    import hotcoco  # noqa: F401  # imports are not timed

    from tldet.evaluation.engines import score_results
    from tldet.evaluation.loading import load_ground_truth, load_results

    start = perf_counter()
    truth = load_ground_truth(gt, "bbox")
    results = load_results(dt, truth)
    middle = perf_counter()
    numbers = score_results(truth, results).numbers()
    return {"load": middle - start, "score": perf_counter() - middle, "numbers": [numbers[m] for m in METRICS]}


def theirs(gt: str, dt: str) -> dict[str, Any]:
    """Evaluate with pycocotools as in its demo."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with redirect_stdout(io.StringIO()):
        start = perf_counter()
        truth = COCO(gt)
        results = truth.loadRes(dt)
        middle = perf_counter()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"load": middle - start, "score": perf_counter() - middle, "numbers": [float(v) for v in evaluation.stats]}
