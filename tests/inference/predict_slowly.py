"""``tldet predict`` with a stand-in detector whose detections depend on the pixels, in a process that tests kill."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

import tldet.workflows.predict.predict as workflow
from tests.inference.stand import Stand
from tldet.cli.main import main
from tldet.structures.detections import Detections


class Sees(Stand):
    """Finds boxes that are a function of the pixels of the image, and takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def predict(self, images: Any, *_: object) -> Any:
        time.sleep(self.seconds)
        return [self.one(sample) for sample in images]

    def one(self, sample: Any) -> Detections:
        red, green, blue = (float(value) for value in sample.image.reshape(3, -1)[:, 0])
        count = int(red) % 4
        boxes = torch.tensor([[n, n, n + 1 + green / 64, n + 1 + blue / 64] for n in range(count)]).reshape(-1, 4)
        scores = torch.linspace(0.9, 0.5, count)
        return Detections(boxes, scores, torch.arange(count) % 3, class_names=self.class_names)


if __name__ == "__main__":
    workflow.load = lambda *_, **__: Sees(float(sys.argv[1]))  # type: ignore[assignment, return-value]
    sys.exit(main(sys.argv[2:]))
