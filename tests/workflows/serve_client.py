"""A server process for tests, and a small HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests import forked


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A running ``tldet serve``."""

    process: BaseProcess
    port: int

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str | None = None, timeout: float = 60
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, {"content-type": kind} if kind else {})
            answer = connection.getresponse()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, answer.read(), headers)
        finally:
            connection.close()

    def predict(self, body: bytes, kind: str = "image/jpeg", query: str = "") -> Answer:
        return self.ask("POST", f"/predict{query}", body, kind)

    def raw(self, content: bytes, timeout: float = 20) -> bytes:
        """Send bytes and return what comes back until the server closes; empty if it resets the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            found = bytearray()
            try:
                connection.sendall(content)
                while block := connection.recv(1 << 16):
                    found += block
            except (ConnectionError, BrokenPipeError):
                pass
            return bytes(found)

    def resident(self) -> int:
        """Resident memory in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(checkpoint: Path, options: Sequence[object] = ()) -> Iterator[Server]:
    """Run ``tldet serve`` on a free port; it is terminated at the end."""
    command = ["tldet", "serve", checkpoint, "--port", 0, "--precision", "fp32"]
    with tempfile.TemporaryDirectory() as folder:
        process, log = forked.start([*command, *options], Path(folder)), Path(folder) / "stderr"
        try:
            while not (match := re.search(r"serving at http://[\d.]+:(\d+)\b", text := read_if_there(log))):
                assert process.is_alive(), text
                time.sleep(0.05)
            yield Server(process, int(match[1]))
        finally:
            process.terminate()
            process.join(180)
            assert process.exitcode is not None


def read_if_there(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def form(content: bytes, field: str = "image") -> tuple[bytes, str]:
    """A form with a file, and its content type."""
    head = f'--x7\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
    return head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n--x7--\r\n", (
        "multipart/form-data; boundary=x7"
    )
