"""Dynamic batching: images of concurrent requests are predicted in one batch."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from tldet.inference.predictor import Predictor
from tldet.inference.stream import WAITING, PreparedImage
from tldet.structures.detections import Detections
from tldet.workflows.serve.metrics import Metrics

log = logging.getLogger(__name__)


class _Job(NamedTuple):
    """A queued image."""

    image: PreparedImage
    result: Future[Detections]


class Batcher:
    """A thread that predicts on queued images.

    It takes all queued images. If they do not fill a batch, it waits up to ``delay`` for more. Images of different
    padded sizes are predicted in separate batches, one after the other.

    Args:
        predictor: the detector.
        batch: largest number of images per batch.
        delay: maximum time to wait for more images, seconds.
        metrics: counts batches.
    """

    def __init__(self, predictor: Predictor, *, batch: int, delay: float, metrics: Metrics) -> None:
        self._predictor, self._batch, self._delay, self._metrics = predictor, batch, delay, metrics
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def submit(self, image: PreparedImage) -> Future[Detections]:
        """Queue an image. Cancel the result to skip the image if its batch has not started yet."""
        job = _Job(image, Future())
        self._jobs.put(job)
        return job.result

    def close(self) -> None:
        """Finish the queued images, and stop the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            jobs, more = self._gather()
            self._predict([job for job in jobs if job.result.set_running_or_notify_cancel()])

    def _gather(self) -> tuple[list[_Job], bool]:
        """Return the next images, and False if the batcher was closed."""
        jobs: list[_Job] = []
        deadline: float | None = None
        while len(jobs) < WAITING * self._batch:
            try:
                job = self._jobs.get(timeout=None if deadline is None else self._left(len(jobs), deadline))
            except queue.Empty:
                break
            if job is None:
                return jobs, False
            jobs.append(job)
            deadline = deadline or time.monotonic() + self._delay
        return jobs, True

    def _left(self, jobs: int, deadline: float) -> float:
        """Return the time to wait for another image in seconds; 0 if the batch is full."""
        return 0.0 if jobs >= self._batch else max(0.0, deadline - time.monotonic())

    def _predict(self, jobs: Sequence[_Job]) -> None:
        """Set the results. If a batch of several images fails, each image is predicted on its own."""
        if not jobs:
            return
        start = time.perf_counter()
        try:
            for done in self._predictor.stream([job.image for job in jobs], 0.0, self._batch):
                for number, found in done:
                    assert isinstance(found, Detections)
                    jobs[number].result.set_result(found)
        except Exception as error:  # the service continues
            left = [job for job in jobs if not job.result.done()]
            if len(jobs) == 1:
                log.exception("prediction failed")
                jobs[0].result.set_exception(error)
            else:
                for job in left:
                    self._predict([job])
            return
        self._metrics.inference.observe(time.perf_counter() - start)
        self._metrics.batches.observe(len(jobs))
