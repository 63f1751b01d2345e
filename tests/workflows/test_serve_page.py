"""The web page in a headless browser: drop, slide, filter, download."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.inference.test_outputs import film
from tests.workflows.serve_client import Server, serving

for needed in ("fastapi", "uvicorn", "python_multipart"):
    pytest.importorskip(needed)
playwright = pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install playwright")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DROP = """([content, name, type]) => {
    const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, { type }));
    document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
}"""
SLIDE = """([id, value]) => {
    const slider = document.getElementById(id);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
}"""


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Server]:
    with serving(run / "best.pt", ["--score", 0.001]) as found:
        yield found


@pytest.fixture
def page(server: Server) -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium or Chrome")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        shown = browser.new_page(accept_downloads=True, viewport={"width": 1200, "height": 800})
        errors: list[str] = []
        shown.on("pageerror", lambda error: errors.append(str(error)))
        shown.on("console", lambda one: errors.append(one.text) if reported(one) else None)
        requests: list[str] = []
        shown.on("request", lambda one: requests.append(one.url))
        shown.goto(f"http://127.0.0.1:{server.port}/")
        shown.wait_for_selector("#classes input")
        yield shown
        assert errors == []
        assert all(url.startswith((f"http://127.0.0.1:{server.port}/", "blob:", "data:")) for url in requests)
        browser.close()


def reported(message: Any) -> bool:
    """Whether the console shows an error other than an answer of 4xx, which the page itself reports."""
    return message.type == "error" and "Failed to load resource" not in message.text


def drop(page: Any, content: bytes, name: str, kind: str) -> None:
    page.evaluate(DROP, [base64.b64encode(content).decode(), name, kind])


def counts(page: Any) -> tuple[int, int]:
    """Shown and all detections."""
    words = page.text_content("#count").split()
    return int(words[0]), int(words[2])


def downloaded(page: Any, button: str) -> tuple[str, bytes]:
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def test_drop_slide_filter_and_download(page: Any, server: Server, digits: Path) -> None:
    path = sorted((digits / "test").glob("*.jpg"))[0]
    drop(page, path.read_bytes(), "digits.jpg", "image/jpeg")
    page.wait_for_selector("#json:enabled")
    every = server.predict(path.read_bytes(), query="?score=0.001").json["detections"]
    assert counts(page) == (len(every), len(every))
    assert len(every) > 1
    size = page.evaluate("[document.getElementById('canvas').width, document.getElementById('canvas').height]")
    assert size == [128, 96]
    scores = sorted(one["score"] for one in every)
    middle = (scores[len(scores) // 2 - 1] + scores[len(scores) // 2]) / 2
    page.evaluate(SLIDE, ["score", middle])
    shown = counts(page)[0]
    kept = sum(score >= middle for score in scores)
    assert abs(shown - kept) <= sum(abs(score - middle) < 0.0011 for score in scores), "the slider has steps of 0.001"
    assert 0 < shown < len(every)
    name, content = downloaded(page, "#json")
    assert name == "digits.json"
    assert len(json.loads(content)["detections"]) == shown
    name, content = downloaded(page, "#png")
    drawn = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert (name, drawn.shape) == ("digits.png", (96, 128, 3))
    page.evaluate(SLIDE, ["score", 0.001])
    page.click("#none")
    assert counts(page)[0] == 0
    page.click(f"#classes input[value='{every[0]['category_name']}']")
    assert counts(page)[0] == sum(one["category_name"] == every[0]["category_name"] for one in every)
    page.click("#all")
    assert counts(page)[0] == len(every)


def test_a_file_that_is_no_image_is_reported(page: Any, server: Server) -> None:
    page.set_input_files("#file", files=[{"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"words"}])
    page.wait_for_selector("#message[data-error]")
    assert page.text_content("#message").startswith("a.jpg: ")


def test_a_video_is_sent_frame_by_frame(page: Any, server: Server, tmp_path: Path) -> None:
    if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.64000a\"')"):
        pytest.skip("this browser plays no H.264")
    drop(page, film(tmp_path / "v.mp4", 25).read_bytes(), "v.mp4", "video/mp4")
    page.wait_for_selector("#json:enabled", timeout=60_000)
    assert "5 frames" in page.text_content("#message")
    name, content = downloaded(page, "#json")
    assert name == "v.json"
    assert [one["time"] for one in json.loads(content)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    page.evaluate(SLIDE, ["frame", 2])
    assert page.evaluate("current") == 2
