"""Limits on the size, duration and number of requests, applied before a request reaches the application."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from tldet.workflows.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
HEADER_BYTES = 16 << 10  # headers and path of a request
BODIES = 16  # limit of the memory for all bodies, as a multiple of the largest body
COUNTED = ("/", "/predict", "/health", "/ready", "/metrics", "/model", "/openapi.json")  # all others count as one path


@dataclass(frozen=True)
class GuardSettings:
    """Limits of requests.

    Attributes:
        body: largest body in bytes.
        seconds: time limit for receiving a request.
        queue: largest number of pending prediction requests.
    """

    body: int
    seconds: float
    queue: int


class _Refused(Exception):
    """A request that is rejected with an error response."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Guard:
    """ASGI middleware that reads the whole body within the limits, and counts requests.

    Attributes:
        app: the application.
        settings: the limits.
        metrics: counts requests.
        pending: number of pending prediction requests.
        held: size of all bodies in memory, bytes.
    """

    app: App
    settings: GuardSettings
    metrics: Metrics
    pending: int = field(default=0, init=False)
    held: int = field(default=0, init=False)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle a connection event."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, predicts = time.perf_counter(), scope["path"] == "/predict"
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admitted(scope, receive, counted, predicts=predicts)
        finally:
            path = scope["path"] if scope["path"] in COUNTED else "other"
            self.metrics.request(path, status, time.perf_counter() - start)

    async def _admitted(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, *, predicts: bool) -> None:
        if predicts and self.pending >= self.settings.queue:
            await _answer(send, 429, "the queue is full; try again later")
            return
        self.pending += predicts
        body = bytearray()
        try:
            try:
                complete = await asyncio.wait_for(self._read(scope, receive, body), self.settings.seconds)
            except asyncio.TimeoutError:
                raise _Refused(408, f"the request was not received within {self.settings.seconds:g} s") from None
            if complete:
                await self.app(scope, _replay(bytes(body), receive), send)
        except _Refused as error:
            await _answer(send, error.status, str(error))
        finally:
            self.pending -= predicts
            self.held -= len(body)

    async def _read(self, scope: MutableMapping[str, Any], receive: Receive, body: bytearray) -> bool:
        """Read the body; return False if the client has disconnected."""
        lengths = [len(name) + len(value) for name, value in scope["headers"]]
        if sum(lengths) + len(scope.get("raw_path", b"")) + len(scope.get("query_string", b"")) > HEADER_BYTES:
            raise _Refused(431, f"the headers are larger than {HEADER_BYTES >> 10} KiB")
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        limit = self.settings.body
        if not stated.isdigit() or len(stated) > 18 or int(stated) > limit:
            raise _Refused(413, f"the request is larger than {limit / 1e6:g} MB")
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            if len(body) + len(part) > limit:
                raise _Refused(413, f"the request is larger than {limit / 1e6:g} MB")
            if self.held + len(part) > BODIES * limit:
                raise _Refused(429, "too many large requests at the same time; try again later")
            body += part
            self.held += len(part)
            if not message.get("more_body"):
                return True


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that first returns the whole body, then calls ``receive``."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _answer(send: Send, status: int, message: str) -> None:
    """Send an error as JSON.

    The rest of the request is then read and discarded, so that the client receives the response; after a timeout the
    connection is closed.
    """
    content = json.dumps({"detail": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    if status == 408:
        headers.append((b"connection", b"close"))
    if status == 429:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
