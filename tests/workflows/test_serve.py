"""The HTTP service, over the loopback interface."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import tldet
from tests.workflows.serve_client import Server, form, serving
from tldet.cli.main import main
from tldet.errors import ConfigError
from tldet.workflows.serve.serve import serve

for needed in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(needed)
SECONDS = 2.0  # time limit of the impatient server
LOW = "?score=0.001"


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Server]:
    limits = ["--max-body", 1, "--max-pixels", 2_000_000, "--queue", 100]
    with serving(run / "best.pt", limits) as found:
        yield found


@pytest.fixture(scope="module")
def impatient(run: Path) -> Iterator[Server]:
    with serving(run / "best.pt", ["--timeout", SECONDS]) as found:
        yield found


@pytest.fixture(scope="module")
def jpeg(digits: Path) -> bytes:
    return sorted((digits / "test").glob("*.jpg"))[0].read_bytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(side: int) -> bytes:
    """A PNG of a few kilobytes whose pixels would fill gigabytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_every_form_of_an_image_gives_the_detections_of_the_predictor(server: Server, run: Path, jpeg: bytes) -> None:
    expected = tldet.load(run / "best.pt", precision="fp32").predict(jpeg, 0.001)
    text = base64.b64encode(jpeg).decode()
    answers = [
        server.predict(jpeg, "image/jpeg", LOW),
        server.predict(jpeg, "application/octet-stream", LOW),
        server.predict(*form(jpeg), LOW),
        server.predict(*form(jpeg, "file"), LOW),
        server.predict(json.dumps({"image": text}).encode(), "application/json", LOW),
        server.predict(json.dumps({"image": f"data:image/jpeg;base64,{text}"}).encode(), "application/json", LOW),
    ]
    assert [answer.status for answer in answers] == [200] * 6, answers[-1].body
    first = answers[0].json
    assert all(answer.json == first for answer in answers)
    assert (first["height"], first["width"]) == (96, 128)
    assert len(first["detections"]) == len(expected) > 0
    for one, record in zip(first["detections"], expected.to_coco(1, range(1, 11)), strict=True):
        np.testing.assert_allclose([*one["bbox"], one["score"]], [*record["bbox"], record["score"]], atol=1e-3)
        assert one["category_name"] == str(one["category_id"] - 1)
        assert "image_id" not in one


def test_score_and_classes_select(server: Server, jpeg: bytes) -> None:
    every = server.predict(jpeg, query=LOW).json["detections"]
    middle = float(np.median([one["score"] for one in every]))
    assert len(server.predict(jpeg, query=f"?score={middle}").json["detections"]) == sum(
        one["score"] >= middle for one in every
    )
    name = every[0]["category_name"]
    some = server.predict(jpeg, query=f"{LOW}&classes={name}&classes=none")
    assert some.status == 400
    assert "no class is called" in some.json["detail"]
    some = server.predict(jpeg, query=f"{LOW}&classes={name}")
    assert some.json["detections"] == [one for one in every if one["category_name"] == name]


def test_a_drawn_image(server: Server, jpeg: bytes) -> None:
    answer = server.predict(jpeg, query=f"{LOW}&output=png")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    drawn = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
    plain = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()


def test_status_metrics_and_description(server: Server, jpeg: bytes) -> None:
    assert server.ask("GET", "/health").json == {"status": "ok"}
    assert server.ask("GET", "/ready").json == {"status": "ready"}
    model = server.ask("GET", "/model").json
    assert [one["name"] for one in model["classes"]] == [str(digit) for digit in range(10)]
    assert (model["masks"], model["max_pixels"]) == (False, 2_000_000)

    def counted() -> dict[str, float]:
        lines = server.ask("GET", "/metrics").body.decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    before = counted()
    assert server.predict(jpeg).status == 200
    assert server.predict(b"words").status == 400
    after = counted()
    for status in ("200", "400"):
        name = f'tldet_requests_total{{path="/predict",status="{status}"}}'
        assert after[name] == before.get(name, 0) + 1
    assert after["tldet_batch_images_count"] == before["tldet_batch_images_count"] + 1
    assert after['tldet_request_seconds_bucket{le="+Inf"}'] == after["tldet_request_seconds_count"]
    assert after["tldet_requests_pending"] == 0
    described = server.ask("GET", "/openapi.json").json
    operation = described["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) >= {"image/*", "multipart/form-data", "application/json"}
    assert {one["name"] for one in operation["parameters"]} == {"score", "classes", "output"}
    assert "429" in operation["responses"]


def test_the_page_is_one_file_and_may_run_nothing_else(server: Server) -> None:
    answer = server.ask("GET", "/")
    text = answer.body.decode()
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not [part for part in ("http://", "https://", "src=", "@import") if part in text]
    assert text.count("<script>") == text.count("<style>") == 1


def test_concurrent_requests_share_batches(server: Server, jpeg: bytes) -> None:
    def sizes() -> float:
        text = server.ask("GET", "/metrics").body.decode()
        found = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[0] != "#"}
        return found["tldet_batch_images_count"]

    before = sizes()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: server.predict(jpeg, query=LOW), range(48)))
    assert [answer.status for answer in answers] == [200] * 48
    best = [answer.json["detections"][:5] for answer in answers]  # lower ones may change places by rounding
    for found in best:
        scores = [[one["score"] for one in each] for each in (found, best[0])]
        np.testing.assert_allclose(scores[0], scores[1], atol=0.002)
    assert sizes() - before < 48


HOSTILE: dict[str, tuple[Any, ...]] = {  # method, path, body, content type
    "empty": ("POST", "/predict", b"", "image/jpeg"),
    "words": ("POST", "/predict", b"words " * 50, "image/jpeg"),
    "truncated": ("POST", "/predict", b"truncated", "image/jpeg"),
    "png bomb": ("POST", "/predict", png_bomb(60_000), "image/png"),
    "png that ends early": ("POST", "/predict", png_bomb(1_200), "image/png"),
    "gif bomb": (
        "POST",
        "/predict",
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
        "image/gif",
    ),
    "too large": ("POST", "/predict", bytes(1_000_001), "image/jpeg"),
    "type": ("POST", "/predict", b"a,b", "text/csv"),
    "json": ("POST", "/predict", b"{", "application/json"),
    "json list": ("POST", "/predict", b"[1]", "application/json"),
    "deep json": ("POST", "/predict", b"[" * 200_000, "application/json"),
    "json number": ("POST", "/predict", b'{"image": 5}', "application/json"),
    "base64": ("POST", "/predict", b'{"image": "%%%%"}', "application/json"),
    "url": ("POST", "/predict", b'{"url": "http://127.0.0.1/a.jpg"}', "application/json"),
    "file url": ("POST", "/predict", b'{"url": "file:///etc/passwd"}', "application/json"),
    "form without end": ("POST", "/predict", b"--x7\r\n", "multipart/form-data; boundary=x7"),
    "form without boundary": ("POST", "/predict", b"--x7\r\n", "multipart/form-data"),
    "form of text": ("POST", "/predict", form(b"a")[0].replace(b'; filename="a.jpg"', b""), form(b"")[1]),
    "form of another field": ("POST", "/predict", *form(b"a", "photo")),
    "score": ("POST", "/predict?score=2", b"a", "image/jpeg"),
    "score text": ("POST", "/predict?score=high", b"a", "image/jpeg"),
    "output": ("POST", "/predict?output=exe", b"a", "image/jpeg"),
    "method": ("GET", "/predict", None, None),
    "path": ("GET", "/../../etc/passwd", None, None),
    "encoded path": ("GET", "/%2e%2e/%00", None, None),
    "put": ("PUT", "/", b"a", None),
}
RAW: dict[str, bytes] = {
    "garbage": bytes(range(256)) * 8,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "huge header": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
    "huge path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "length": b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    "length text": b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1e3\r\n\r\n",
    "stated length": b"POST /predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    + b"Content-Length: 99999999999\r\n\r\nabc",
    "two lengths": b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "chunked": b"POST /predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"10000\r\n" + bytes(65536) + b"\r\n" + (b"10000\r\n" + bytes(65536) + b"\r\n") * 20 + b"0\r\n\r\n",
    "chunks": b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "smuggled": b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n"
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}  # fmt: skip


def body_of(name: str, jpeg: bytes) -> Any:
    return jpeg[: len(jpeg) // 2] if name == "truncated" else HOSTILE[name][2]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_requests_are_answered_with_4xx(server: Server, jpeg: bytes, name: str) -> None:
    method, path, _, kind = HOSTILE[name]
    answer = server.ask(method, path, body_of(name, jpeg), kind)
    assert 400 <= answer.status < 500, answer.body
    assert b"Traceback" not in answer.body


@pytest.mark.parametrize("name", RAW)
def test_hostile_bytes_are_answered_with_4xx_or_closed(server: Server, name: str) -> None:
    answer = server.raw(RAW[name])
    assert not answer or answer.startswith(b"HTTP/1.1 4") or name in ("two lengths", "smuggled"), answer[:200]
    assert b"HTTP/1.1 2" not in answer


@pytest.mark.parametrize("part", ["nothing", "header", "body"])
def test_slow_senders_are_cut_off(impatient: Server, part: str) -> None:
    start = {
        "nothing": b"",
        "header": b"POST /predict HTTP/1.1\r\nHost: a\r\nX: ",
        "body": b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
    }
    with socket.create_connection(("127.0.0.1", impatient.port), 10) as connection:
        connection.sendall(start[part])
        before, found = time.monotonic(), bytearray()
        connection.settimeout(0.2)
        while time.monotonic() - before < 5 * SECONDS:
            try:
                if part != "nothing":
                    connection.sendall(b"a")
                block = connection.recv(4096)
                if not block:
                    break
                found += block
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() - before < 3 * SECONDS
    assert found.startswith(b"HTTP/1.1 408") if part == "body" else not found


def test_three_hundred_hostile_requests_leave_the_service_as_it_was(server: Server, jpeg: bytes) -> None:
    def attack(number: int) -> None:
        names = list(HOSTILE)
        if number % 3:
            name = names[number % len(names)]
            method, path, _, kind = HOSTILE[name]
            assert 400 <= server.ask(method, path, body_of(name, jpeg), kind).status < 500
        else:
            server.raw(list(RAW.values())[number // 3 % len(RAW)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(attack, range(100)))  # buffers that every service needs
        before = server.resident()
        list(pool.map(attack, range(300)))
    growth = server.resident() - before
    assert growth < 20e6, f"{growth / 1e6:.1f} MB"
    assert server.predict(jpeg).status == 200
    assert server.process.is_alive()


def test_sigterm_answers_what_was_begun(run: Path, jpeg: bytes) -> None:
    with serving(run / "best.pt", ["--max-delay", 4, "--batch-size", 64]) as server:
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(server.predict, jpeg) for _ in range(4)]
            while b"tldet_requests_pending 4" not in server.ask("GET", "/metrics").body:
                time.sleep(0.05)
            server.process.terminate()
            assert [one.result().status for one in waiting] == [200] * 4
        server.process.join(30)
        assert server.process.exitcode == 0
        with pytest.raises(ConnectionError):
            server.ask("GET", "/health")


def test_images_by_url_from_allowed_hosts_only(run: Path, jpeg: bytes) -> None:
    class Images(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            moved = self.path == "/moved"
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", f"http://localhost:{images.server_port}/a.jpg")
            self.end_headers()
            if not moved:
                self.wfile.write(bytes(1_100_000) if self.path == "/large" else jpeg)

        def log_message(self, *_: object) -> None:
            pass

    images = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Images)
    threading.Thread(target=images.serve_forever, daemon=True).start()
    try:
        with serving(run / "best.pt", ["--url-hosts", "127.0.0.1", "--max-body", 1]) as server:

            def by_url(url: str) -> Any:
                return server.predict(json.dumps({"url": url}).encode(), "application/json", LOW)

            place = f"http://127.0.0.1:{images.server_port}"
            found = by_url(f"{place}/a.jpg")
            assert found.status == 200, found.body
            assert found.json == server.predict(jpeg, query=LOW).json
            refused = ["http://localhost/a.jpg", "file:///etc/passwd", "ftp://127.0.0.1/a", f"{place}@localhost/a.jpg"]
            assert [by_url(url).status for url in refused] == [403] * 4
            assert by_url(f"{place}/moved").status == 400
            assert by_url(f"{place}/large").status == 413
            assert by_url("http://127.0.0.1:9/a.jpg").status == 400
    finally:
        images.shutdown()


def test_an_address_in_use_is_one_line(server: Server, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(run / "best.pt"), "--port", str(server.port)]) == 2
    told = capsys.readouterr().err
    assert f"--host 127.0.0.1 --port {server.port}: " in told
    assert told.count("\n") == 1


def test_a_missing_extra_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tldet.workflows.serve.serve.find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(ConfigError, match=r"uvicorn is not installed: pip install 'tldet\[serve\]'"):
        serve(run / "best.pt")


@pytest.mark.slow
def test_sixty_four_clients(run: Path, jpeg: bytes) -> None:
    """No request of 64 clients fails, and the service is nearly as fast as the predictor."""
    seconds = 20.0
    predictor = tldet.load(run / "best.pt", precision="fp32")
    predictor.predict([jpeg] * 64)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < 5:
        images += len(predictor.predict([jpeg] * 64, batch=4))
    alone = images / (time.perf_counter() - start)
    times: list[float] = []
    with serving(run / "best.pt") as server:
        end = time.perf_counter() + seconds

        def client(_: int) -> None:
            while time.perf_counter() < end:
                begin = time.perf_counter()
                assert server.predict(jpeg).status == 200
                times.append(time.perf_counter() - begin)

        with ThreadPoolExecutor(64) as pool:
            list(pool.map(client, range(64)))
    p50, p99 = np.percentile(times, [50, 99])
    print(f"{len(times) / seconds:.1f} images/s (predictor {alone:.1f}), p50 {p50:.3f} s, p99 {p99:.3f} s")  # noqa: T201
    assert len(times) / seconds > 0.3 * alone, "the clients, in Python, share the cores"
