"""A session without a network: its detections are a function of the pixels it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

METADATA: dict[str, Any] = {
    "format": 1, "kind": "detector", "class_names": ["cat", "dög"], "category_ids": [7, 3], "precision": "fp32",
    "input": {"short": 96, "long": 160}, "size": None, "batch": None,
}  # fmt: skip
MASKS = {"threshold": 0.5, "paste": "sampled"}


class FakeSession:
    """Finds two objects on each image; keeps what it was given."""

    name = "fake"
    path = Path("fake.onnx")

    def __init__(self, **changes: Any) -> None:
        self.metadata = {**METADATA, **changes}
        self.given: list[tuple[np.ndarray, np.ndarray]] = []

    def run(self, images: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
        self.given.append((images.copy(), sizes.copy()))
        count = len(images)
        boxes, scores = np.zeros((count, 5, 4), np.float32), np.zeros((count, 5), np.float32)
        labels, patches = np.zeros((count, 5), np.int64), np.zeros((count, 5, 4, 4), np.float32)
        for row, (height, width) in enumerate(sizes.tolist()):
            pixels = images[row, :height, :width]
            x, y = float(pixels[..., 0].mean()) / 255 * width / 3, float(pixels[..., 1].mean()) / 255 * height / 3
            boxes[row, :2] = [x, y, width * 0.7, height * 0.9], [0, 0, width + 9, y + 5]
            scores[row, :2] = 0.9, 0.31
            labels[row, :2] = 1, 0
            patches[row, :2] = np.linspace(0.2, 0.9, 16).reshape(4, 4)
        counts = np.full(count, 2, np.int64)
        return [boxes, scores, labels, counts, *([patches] if self.metadata.get("masks") else [])]
