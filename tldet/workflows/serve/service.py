"""Detection in the images of requests, independent of HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np

from tldet.data.images import decode_image
from tldet.inference.predictor import Predictor
from tldet.inference.stream import PreparedImage
from tldet.runtime.images import Reduced
from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.visualize.drawing import draw
from tldet.workflows.serve.batching import Batcher
from tldet.workflows.serve.metrics import Metrics
from tldet.workflows.serve.request import ServeRequest

_T = TypeVar("_T")


@dataclass(frozen=True)
class ImageDetections:
    """Detections on an image of (height, width) ``size``."""

    detections: Detections
    size: Size


class Service:
    """A detector with a pool of threads that decode images and one thread that predicts.

    Args:
        predictor: the detector.
        settings: arguments of the command.
    """

    def __init__(self, predictor: Predictor, settings: ServeRequest) -> None:
        self.predictor, self.settings, self.metrics = predictor, settings, Metrics()
        self.batcher = Batcher(predictor, batch=settings.batch_size, delay=settings.max_delay, metrics=self.metrics)
        self._pool = ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2), "decode")

    def warm_up(self) -> None:
        """Predict on a black image, so that the first request is as fast as later ones."""
        self.batcher.submit(self.predictor.prepare(Reduced(np.zeros((64, 64, 3), np.uint8)))).result()

    async def in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function in the pool of decoding threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    async def detect(self, content: bytes, score: float, classes: Sequence[str]) -> ImageDetections:
        """Detect objects in an encoded image.

        Args:
            content: the image.
            score: score threshold.
            classes: class names to return; all if empty.

        Raises:
            DataError: the image cannot be read.
            ValueError: a class name is unknown.
            TimeoutError: the detector is too busy.
        """
        prepared, size = await self.in_thread(self._prepared, content)
        future = asyncio.wrap_future(self.batcher.submit(prepared))
        found = (await asyncio.wait_for(future, self.settings.timeout)).filter(score=score, classes=classes or None)
        self.metrics.found(len(found))
        return ImageDetections(found, size)

    def _prepared(self, content: bytes) -> tuple[PreparedImage, Size]:
        image = self.predictor.open(content)
        return self.predictor.prepare(image), image.whole

    def records(self, found: ImageDetections) -> dict[str, Any]:
        """Return the size of the image, and the detections as COCO results without ``image_id``."""
        rows = zip(found.detections.to_coco(0, self.predictor.category_ids), found.detections.names(), strict=True)
        objects = [{**record, "category_name": name} for record, name in rows]
        for one in objects:
            del one["image_id"]
        return {"height": found.size[0], "width": found.size[1], "detections": objects}

    def drawing(self, content: bytes, found: ImageDetections) -> bytes:
        """Return the image with drawn detections as PNG."""
        image = decode_image(content, "image", None, self.predictor.limits).image
        _, encoded = cv2.imencode(".png", cv2.cvtColor(draw(image, found.detections), cv2.COLOR_RGB2BGR))
        return encoded.tobytes()

    def describe(self) -> dict[str, Any]:
        """Return the classes and limits."""
        categories = zip(self.predictor.category_ids, self.predictor.class_names, strict=True)
        model, settings = self.predictor.model, self.settings
        return {
            "classes": [{"category_id": key, "name": name} for key, name in categories],
            "masks": model.predicts_masks,
            "input": {"short": self.predictor.short, "long": self.predictor.long},
            "score": settings.score,
            "max_megabytes": settings.max_body,
            "max_pixels": settings.max_pixels,
        }

    def close(self) -> None:
        """Finish the queued images, and stop the threads."""
        self.batcher.close()
        self._pool.shutdown()
