"""Parts of the service: batching, limits and metrics."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch

from tldet.data.loader import Sample
from tldet.inference.stream import PreparedImage, StreamResult, stream
from tldet.structures.detections import Detections
from tldet.structures.target import Target
from tldet.workflows.serve.batching import Batcher
from tldet.workflows.serve.guard import BODIES, Guard, GuardSettings
from tldet.workflows.serve.metrics import Histogram, Metrics


def prepared(value: int) -> PreparedImage:
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return PreparedImage([Sample(torch.full((3, 1, 1), value, dtype=torch.uint8), nothing, (1, 1))])


class Counting:
    """Finds as many objects as the value of the pixels; 13 cannot be predicted."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.free = threading.Event()
        self.free.set()

    def stream(self, items: Iterable[Any], score: float, batch: int) -> Iterator[list[tuple[int, StreamResult]]]:
        return stream(items, self.predict, select=lambda found: found.above(score), batch=batch)

    def predict(self, samples: Sequence[Sample]) -> list[Detections]:
        self.free.wait(10)
        self.batches.append(len(samples))
        counts = [int(one.image[0, 0, 0]) for one in samples]
        if 13 in counts:
            raise RuntimeError("13")
        boxes = [torch.tensor([[0.0, 0, 1, 1]]).expand(count, 4) for count in counts]
        return [Detections(one, torch.ones(len(one)), torch.zeros(len(one), dtype=torch.int64)) for one in boxes]


@pytest.fixture
def counting() -> Counting:
    return Counting()


def batcher(counting: Counting, **given: Any) -> Batcher:
    return Batcher(counting, **{"batch": 4, "delay": 0.05, "metrics": Metrics(), **given})  # type: ignore[arg-type]


def test_waiting_images_are_predicted_together(counting: Counting) -> None:
    made = batcher(counting)
    counting.free.clear()
    first = made.submit(prepared(1))
    time.sleep(0.2)
    others = [made.submit(prepared(n)) for n in range(10)]
    counting.free.set()
    assert len(first.result(10)) == 1
    assert [len(one.result(10)) for one in others] == list(range(10))
    assert counting.batches == [1, 4, 4, 2]
    made.close()
    assert not made.alive


def test_a_single_image_waits_for_others_only_so_long(counting: Counting) -> None:
    made, start = batcher(counting, delay=0.1), time.monotonic()
    made.submit(prepared(1)).result(10)
    assert 0.08 < time.monotonic() - start < 2
    made.close()


def test_one_image_that_fails_does_not_fail_its_batch(counting: Counting) -> None:
    made = batcher(counting)
    results = [made.submit(prepared(n)) for n in (3, 13, 5)]
    assert [len(results[n].result(10)) for n in (0, 2)] == [3, 5]
    with pytest.raises(RuntimeError, match="13"):
        results[1].result(10)
    assert len(made.submit(prepared(2)).result(10)) == 2
    made.close()


def test_cancelled_images_are_not_predicted_and_closing_answers_the_rest(counting: Counting) -> None:
    made = batcher(counting)
    counting.free.clear()
    first = made.submit(prepared(1))
    time.sleep(0.2)
    cancelled, kept = made.submit(prepared(7)), made.submit(prepared(2))
    assert cancelled.cancel()
    counting.free.set()
    made.close()
    assert (len(first.result(0)), len(kept.result(0))) == (1, 2)
    assert sum(counting.batches) == 2


def request(guard: Guard, parts: Sequence[bytes], path: str = "/predict", pause: float = 0.0, **headers: str) -> Any:
    """The statuses and bodies that a request is answered with."""
    sent: list[Any] = []
    left = list(parts)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        if not left:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return guard({"type": "http", "path": path, "headers": given}, receive, send), sent


def echo(seconds: float = 0.0) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await asyncio.sleep(seconds)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})

    return app


def guarded(seconds: float = 0.0, queue: int = 2) -> Guard:
    return Guard(echo(seconds), GuardSettings(10, 0.3, queue), Metrics())


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ([b"12345", b"67890"], {}, 200),
        ([b"12345", b"678901"], {}, 413),
        ([b"1"], {"content_length": "11"}, 413),
        ([b"1"], {"content_length": "x"}, 413),
        ([b"1"], {"content_length": "9" * 30}, 413),
        ([b""], {}, 200),
    ],
)
def test_bodies(parts: list[bytes], headers: dict[str, str], status: int) -> None:
    guard = guarded()
    call, sent = request(guard, parts, **headers)
    asyncio.run(call)
    assert sent[0]["status"] == status
    if status == 200:
        assert sent[1]["body"] == b"".join(parts)
    assert (guard.pending, guard.held) == (0, 0)


def test_a_slow_body_is_answered_with_408() -> None:
    call, sent = request(guarded(), [b"1"] * 9, pause=0.1)
    asyncio.run(call)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


def test_a_client_that_goes_is_forgotten() -> None:
    guard = guarded()
    sent: list[Any] = []

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guard({"type": "http", "path": "/predict", "headers": []}, gone, send))
    assert sent == []
    assert (guard.pending, guard.held) == (0, 0)


def test_a_full_queue_is_answered_with_429_and_status_is_not() -> None:
    guard = guarded(seconds=0.2)

    async def several() -> list[int]:
        calls = [request(guard, [b"1"]) for _ in range(5)] + [request(guard, [b"1"], "/health")]
        await asyncio.gather(*(call for call, _ in calls))
        return [sent[0]["status"] for _, sent in calls]

    assert asyncio.run(several()) == [200, 200, 429, 429, 429, 200]
    assert guard.pending == 0


def test_many_large_bodies_at_once_are_refused() -> None:
    guard = guarded(queue=100)
    guard.held = BODIES * 10 - 5
    call, sent = request(guard, [b"123456"])
    asyncio.run(call)
    assert sent[0]["status"] == 429


def test_text_of_metrics() -> None:
    histogram = Histogram("h", "A histogram.", (1, 5))
    for value in (0.5, 1, 2, 7):
        histogram.observe(value)
    assert histogram.lines() == [
        "# HELP h A histogram.", "# TYPE h histogram", 'h_bucket{le="1"} 2', 'h_bucket{le="5"} 3',
        'h_bucket{le="+Inf"} 4', "h_sum 10.5", "h_count 4",
    ]  # fmt: skip
