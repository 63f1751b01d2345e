"""A predictor for tests of files: it finds the same boxes on every image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tldet.data.images import read_reduced
from tldet.data.loader import Sample, as_pixels
from tldet.engine.precision import Precision
from tldet.inference.stream import PreparedImage, StreamResult, stream
from tldet.runtime.images import Limits, Reduced
from tldet.runtime.scores import ScoreSettings
from tldet.structures.detections import Detections
from tldet.structures.target import Target


class Stand:
    """Takes the place of a :class:`~tldet.inference.predictor.Predictor`.

    Attributes:
        before: called with the number of images before each prediction.
    """

    class_names: tuple[str, ...] = ("cat", "a/b", "a_b")
    category_ids: tuple[int, ...] = (7, 3, 5)
    device, precision, limits, scores = torch.device("cpu"), Precision(), Limits(), ScoreSettings()

    def __init__(self, boxes: Any = (), labels: Any = (), bounds: tuple[int, int] | None = None) -> None:
        self.boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.bounds = bounds
        self.before: Callable[[int], None] = lambda _: None
        self.seen, self.factor = 0, 1

    def open(self, path: Path) -> Reduced:
        read = read_reduced(path, self.bounds, self.limits)
        return Reduced(read.image[:: self.factor, :: self.factor], self.factor) if self.factor > 1 else read

    def predict(self, images: Any, *_: object) -> Any:
        self.before(self.seen)
        several = isinstance(images, list)
        self.seen += len(images) if several else 1
        scores = torch.from_numpy(np.linspace(0.9, 0.5, len(self.boxes), dtype=np.float32))
        found = Detections(self.boxes, scores, self.labels, class_names=self.class_names)
        return [found] * len(images) if several else found

    def prepare(self, image: Reduced) -> PreparedImage:
        nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        return PreparedImage([Sample(as_pixels(image.image), nothing, image.whole)])

    def stream(self, items: Iterable[Any], score: float, batch: int) -> Iterator[list[tuple[int, StreamResult]]]:
        return stream(items, lambda samples: self.predict(list(samples)), select=lambda found: found, batch=batch)
