"""HTTP protocol of uvicorn with a time limit for receiving a request."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def limited_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return a protocol that closes a connection whose request, with headers and body, takes longer than ``seconds``.

    uvicorn itself waits forever for a request that never ends.
    """

    class Limited(H11Protocol):
        """Protocol with a timer that starts with the connection or the first byte of a request, until its last byte."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch(arriving=True)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            headers = self.conn.our_state is h11.IDLE and bool(self.conn.trailing_data[0])
            self._watch(arriving=headers or self.conn.their_state is h11.SEND_BODY)

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch(arriving=False)
            super().connection_lost(exc)

        def _watch(self, *, arriving: bool) -> None:
            if arriving and self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.abort)
            elif not arriving and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Limited
