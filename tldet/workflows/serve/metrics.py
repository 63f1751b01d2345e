"""Metrics of the service in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Histogram:
    """Counts of observed values.

    Args:
        name: name of the metric.
        text: description.
        bounds: upper bounds of the buckets.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text, self.bounds = name, text, bounds
        self._counts, self._sum, self._lock = [0] * (len(bounds) + 1), 0.0, threading.Lock()

    def observe(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self.bounds, value)] += 1
            self._sum += value

    def lines(self) -> list[str]:
        """Return the lines of the text format."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        found, so_far = _header(self.name, self.text, "histogram"), 0
        for bound, count in zip([*self.bounds, "+Inf"], counts, strict=True):
            so_far += count
            found.append(f'{self.name}_bucket{{le="{bound}"}} {so_far}')
        return [*found, f"{self.name}_sum {total:.9g}", f"{self.name}_count {so_far}"]


class Metrics:
    """Metrics of the service, counted by several threads."""

    def __init__(self) -> None:
        self.latency = Histogram("tldet_request_seconds", "Time from a request to its response.", SECONDS)
        self.inference = Histogram("tldet_batch_seconds", "Inference time of a batch.", SECONDS)
        self.batches = Histogram("tldet_batch_images", "Number of images per batch.", IMAGES)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._detections, self._lock = 0, threading.Lock()

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a completed request."""
        with self._lock:
            self._requests[path, status] += 1
        self.latency.observe(seconds)

    def found(self, detections: int) -> None:
        """Count the detections of an image."""
        with self._lock:
            self._detections += detections

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """Return all metrics.

        Args:
            gauges: description and value of additional metrics, by name.
        """
        with self._lock:
            requests, detections = dict(self._requests), self._detections
        lines = _header("tldet_requests_total", "Completed requests.", "counter")
        for (path, status), count in sorted(requests.items()):
            lines.append(f'tldet_requests_total{{path="{path}",status="{status}"}} {count}')
        text = "Detections at or above the score threshold of the request."
        lines += [*_header("tldet_detections_total", text, "counter"), f"tldet_detections_total {detections}"]
        for histogram in (self.latency, self.inference, self.batches):
            lines += histogram.lines()
        for name, (text, value) in gauges.items():
            lines += [*_header(name, text, "gauge"), f"{name} {value:.9g}"]
        return "\n".join(lines) + "\n"


def _header(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
