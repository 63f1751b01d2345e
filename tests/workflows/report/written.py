"""Ground truth and detections as COCO files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from tldet.evaluation.columns import GroundTruth, Results


def write_files(folder: Path, truth: GroundTruth, found: Results, name: str = "dt.json") -> tuple[Path, Path]:
    """Write ground truth and detections as COCO JSON."""
    records = zip(
        truth.images.tolist(), truth.categories.tolist(), truth.boxes.tolist(), truth.areas.tolist(), strict=True
    )
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": w, "height": h} for i, (h, w) in enumerate(truth.sizes)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(truth.class_names)],
        "annotations": [
            {"id": number, "image_id": i, "category_id": k, "bbox": box, "area": area, "iscrowd": 0}
            for number, (i, k, box, area) in enumerate(records, 1)
        ],
    }
    rows = zip(
        found.images.tolist(), found.categories.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True
    )
    results = [{"image_id": i, "category_id": k, "bbox": box, "score": score} for i, k, box, score in rows]
    (folder / "gt.json").write_text(json.dumps(content))
    (folder / name).write_text(json.dumps(results))
    return folder / "gt.json", folder / name


def write_large(folder: Path, images: int = 5000, classes: int = 80) -> tuple[Path, Path]:
    """Write a dataset with 7 objects and 100 detections per image."""
    random = np.random.default_rng(0)
    count = images * 100
    boxes = np.concatenate([random.uniform(0, 400, (count, 2)), random.uniform(10, 200, (count, 2))], 1).round(1)
    owner, labels = np.repeat(np.arange(images), 100), random.integers(0, classes, count)
    scores = random.beta(1, 6, count).round(4)
    real = np.flatnonzero(np.arange(count) % 100 < 7)
    near = real[:, None] + np.arange(0, 35, 7)  # five detections near each object
    boxes[near] = boxes[real][:, None] + random.normal(0, 5, (len(real), 5, 4)).round(1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 1)
    labels[near[random.random(near.shape) < 0.8]] = 0
    labels[near] = np.where(random.random(near.shape) < 0.8, labels[real][:, None], labels[near])
    rows = zip(owner.tolist(), labels.tolist(), boxes.tolist(), scores.tolist(), strict=True)
    found = [{"image_id": i, "category_id": k, "bbox": b, "score": s} for i, k, b, s in rows]
    objects = [
        {"id": n, "image_id": int(owner[r]), "category_id": int(labels[r]), "bbox": boxes[r].tolist(), "iscrowd": 0}
        | {"area": float(boxes[r, 2] * boxes[r, 3])}
        for n, r in enumerate(real.tolist(), 1)
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(classes)],
        "annotations": objects,
    }
    (folder / "gt.json").write_text(json.dumps(content))
    (folder / "dt.json").write_text(json.dumps(found))
    return folder / "gt.json", folder / "dt.json"


def gallery_data(page: Path) -> Any:
    """Return the content of the gallery of a page."""
    found = re.search(r'id="gallery-data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])
