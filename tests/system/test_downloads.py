"""Downloads from a server that interrupts, stalls, lies about lengths, redirects and changes its files."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.errors import DownloadError, OutputError
from tldet.system.downloads import DownloadLimits, download

CONTENT = np.random.default_rng(0).bytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
STEP = 90_000  # bytes after which a connection breaks
QUICK = DownloadLimits(timeout=0.4, pauses=(0.01, 0.01))


class Server(BaseHTTPRequestHandler):
    """Serve CONTENT in ways that the path names."""

    asked: dict[str, list[str]]  # Range headers by path, of each server

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        times = len(self.asked.setdefault(self.path, []))
        self.asked[self.path].append(self.headers.get("Range", ""))
        getattr(self, f"get_{self.path.strip('/').partition('.')[0]}")(times)

    def head(self, code: int, length: int | None, **headers: str) -> None:
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def begin(self, tag: str) -> int:
        """Answer a request for the whole file or, for the same version, for the rest; return where it begins."""
        asked = self.headers.get("Range", "")
        begin = int(asked[6:-1]) if asked and self.headers.get("If-Range") == tag else 0
        whole = len(CONTENT)
        more = {"Content_Range": f"bytes {begin}-{whole - 1}/{whole}"} if begin else {}
        self.head(206 if begin else 200, whole - begin, **({"ETag": tag} if tag else {}), **more)
        return begin

    def get_whole(self, _: int) -> None:
        self.wfile.write(CONTENT[self.begin('"1"') :])

    def get_drop(self, _: int) -> None:
        begin = self.begin('"1"')
        self.wfile.write(CONTENT[begin : begin + STEP])

    def get_unversioned(self, _: int) -> None:
        begin = self.begin("")
        self.wfile.write(CONTENT[begin : begin + STEP])

    def get_stall(self, times: int) -> None:
        begin = self.begin('"1"')
        self.wfile.write(CONTENT[begin : begin + STEP] if times < 2 else CONTENT[begin:])
        self.wfile.flush()
        if times < 2:
            time.sleep(0.8)

    def get_changed(self, times: int) -> None:
        begin = self.begin(f'"{times}"' if times < 2 else '"2"')
        self.wfile.write(CONTENT[begin : begin + STEP] if times < 1 else CONTENT[begin:])

    def get_long(self, _: int) -> None:
        self.head(200, len(CONTENT) + 1000, ETag='"1"')
        self.wfile.write(CONTENT)

    def get_short(self, _: int) -> None:
        self.head(200, STEP, ETag='"1"')
        self.wfile.write(CONTENT)

    def get_other(self, times: int) -> None:
        if times:
            self.head(206, 10, ETag='"1"', Content_Range="bytes 5-14/300000")
            self.wfile.write(b"0123456789")
        else:
            self.get_drop(times)

    def get_busy(self, times: int) -> None:
        self.get_whole(times) if times == 2 else self.head(503, 0)

    def get_huge(self, _: int) -> None:
        self.head(200, 10**15)

    def get_endless(self, _: int) -> None:
        self.head(200, None)
        while True:
            self.wfile.write(CONTENT)

    def get_redirect(self, _: int) -> None:
        self.head(302, 0, Location="/whole", X_Linked_Etag=f'"{DIGEST}"')

    def get_stated(self, _: int) -> None:
        self.head(302, 0, Location="/whole", X_Linked_Etag=f'"{"0" * 64}"')

    def get_loop(self, _: int) -> None:
        self.head(302, 0, Location="/loop")

    def get_file(self, _: int) -> None:
        self.head(302, 0, Location="file:///etc/hostname")


@pytest.fixture
def asked() -> dict[str, list[str]]:
    return {}


@pytest.fixture
def url(asked: dict[str, list[str]]) -> Iterator[str]:
    handler = type("Own", (Server,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        running.handle_error = lambda *_: None  # type: ignore[method-assign]  # of closed connections
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize(
    ("path", "requests"),
    [("whole", 1), ("drop", 4), ("stall", 3), ("changed", 2), ("busy", 3), ("redirect", 1)],
)
def test_the_file_arrives_whole(
    path: str, requests: int, url: str, asked: dict[str, list[str]], tmp_path: Path
) -> None:
    target, seen = tmp_path / "new" / "a.bin", []
    found = download(f"{url}/{path}", target, f"sha256:{DIGEST}", limits=QUICK, progress=lambda *one: seen.append(one))
    assert found == DIGEST
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(asked[f"/{path}"]) == requests
    assert [one.name for one in target.parent.iterdir()] == ["a.bin"]
    assert download(f"{url}/{path}", target) == DIGEST, "not again"
    assert len(asked[f"/{path}"]) == requests


def test_only_the_rest_is_asked_for(url: str, asked: dict[str, list[str]], tmp_path: Path) -> None:
    download(f"{url}/drop", tmp_path / "a.bin", limits=QUICK)
    assert asked["/drop"] == ["", f"bytes={STEP}-", f"bytes={2 * STEP}-", f"bytes={3 * STEP}-"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("unversioned", "connection closed after 90,000 bytes; run the command again to resume"),
        ("long", "connection closed after 300,000 bytes"),
        ("short", f"its SHA-256 is .*, but expected {DIGEST}; the download was removed"),
        ("stated", "its SHA-256 is .*, but the server states 0000"),
        ("other", "sent another range of the file than requested"),
        ("huge", "has 1,000,000,000,000,000 bytes, more than the limit of 400,000"),
        ("endless", "has more than the limit of 400,000 bytes"),
        ("loop", "HTTP error 302"),
        ("file", "HTTP error 302 .*file:///etc/hostname.* is not allowed"),
        ("missing", "closed|reset|HTTP error"),
    ],
)
def test_errors(path: str, message: str, url: str, tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    limited = DownloadLimits(timeout=0.4, pauses=(0.01, 0.01), most=400_000)
    with pytest.raises(DownloadError, match=message) as raised:
        download(f"{url}/{path}", target, f"sha256:{DIGEST}", limits=limited)
    assert "\n" not in str(raised.value)
    assert not target.exists()


def test_a_later_call_resumes(url: str, asked: dict[str, list[str]], tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    Path(tmp_path / ".a.bin.part").write_bytes(CONTENT[:STEP])
    mark = {"url": f"{url}/whole", "version": '"1"', "total": len(CONTENT)}
    Path(tmp_path / ".a.bin.part.json").write_text(json.dumps(mark))
    assert download(f"{url}/whole", target, limits=QUICK) == DIGEST
    assert asked["/whole"] == [f"bytes={STEP}-"]
    Path(tmp_path / ".b.bin.part").write_bytes(b"other" * 1000)
    Path(tmp_path / ".b.bin.part.json").write_text(json.dumps({**mark, "version": '"0"'}))
    assert download(f"{url}/whole", tmp_path / "b.bin", limits=QUICK) == DIGEST, "another version starts anew"


def test_two_at_the_same_time(url: str, asked: dict[str, list[str]], tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(download(f"{url}/stall", tmp_path / "a.bin", limits=QUICK)))
        for _ in range(2)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [DIGEST, DIGEST]
    assert len(asked["/stall"]) == 3


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a", "file:///etc/hostname", "/etc/hostname", "http://[::1/a"])
def test_other_urls(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"not an http or https URL|IPv6"):
        download(url, tmp_path / "a")


def test_a_folder_that_cannot_be_written(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        download(f"{url}/whole", tmp_path / "file" / "a.bin")


def test_no_server(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DownloadError, match="refused"):
        download("http://127.0.0.1:9/a.bin", tmp_path / "a.bin")
    assert time.monotonic() - started < 5, "the first connection is not tried again"
