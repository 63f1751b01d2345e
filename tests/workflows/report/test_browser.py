"""Pages of ``tldet report`` and ``tldet compare`` in a headless browser: filters, thumbnails, time and size."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.evaluation.errors.made import grid_truth, noisy, results_of
from tests.workflows.report.written import gallery_data, write_files, write_large
from tldet.evaluation.columns import GroundTruth, Results
from tldet.workflows.report.command import report
from tldet.workflows.report.compare import compare

playwright = pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install playwright")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOOKS = [(width, scheme) for width in (1400, 400) for scheme in ("light", "dark")]
ERRORS = ("", "Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
SET = """([id, value]) => {
    const one = document.getElementById(id);
    one.value = value;
    one.dispatchEvent(new Event("input"));
}"""
LOADED = """() => [...document.querySelectorAll(".gallery img")].filter((one) => one.complete)
    .map((one) => one.naturalWidth)"""
WIDER = """() => [...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, pre, .plots svg, nav")
    && one.getBoundingClientRect().right > innerWidth + 1).map((one) => `${one.tagName}.${one.className}`)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("needs Chromium or Chrome")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page in the browser, the seconds until it was loaded, and its errors."""

    def __init__(self, browser: Any, path: Path, width: int = 1400, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else None)
        self.requests: list[str] = []
        self.page.on("request", lambda one: self.requests.append(one.url))
        start = time.perf_counter()
        self.page.goto(path.as_uri(), wait_until="load")
        self.page.wait_for_selector(".gallery img")
        self.seconds = time.perf_counter() - start
        self.path = path

    def set(self, name: str, value: Any) -> None:
        self.page.evaluate(SET, [f"filter-{name}", str(value)])

    def count(self) -> int:
        """Return the number of images that the filter leaves, after a check of the number of cards."""
        shown = int(self.page.text_content("#filter-count").split(" of ")[0])
        assert self.page.locator(".gallery article").count() == min(shown, 24)
        return shown

    def screenshot(self, name: str) -> None:
        """Write a picture of the whole page, if a folder for it is set in the environment."""
        if folder := os.environ.get("TLDET_SCREENSHOTS"):
            self.page.evaluate("for (const one of document.querySelectorAll('.gallery img')) one.loading = 'eager'")
            self.page.wait_for_function("[...document.querySelectorAll('.gallery img')].every((one) => one.complete)")
            self.page.wait_for_timeout(300)
            self.page.screenshot(path=f"{folder}/report_{name}.png", full_page=True)

    def close(self) -> None:
        assert self.errors == []
        assert [one for one in self.requests if not one.startswith(("data:", self.path.as_uri()))] == []
        self.page.close()


def expected(data: Any, kind: str, category: int | None, scores: list[float]) -> int:
    """Return the number of images of a gallery that have an error of a type and a class, by any detector."""
    if not kind and category is None:
        return len(data["images"])
    number = 0
    for image in data["images"]:
        wrong: list[Any] = []
        for found, rows, score in zip(image["found"], image["detections"], scores, strict=True):
            wrong += [
                row for row in rows if row[5] >= score and row[6] not in ("Hit", "Ignored") and kind in ("", row[6])
            ]
            pairs = zip(image["objects"], found, strict=True)
            wrong += [row for row, best in pairs if best < score and row[6] != "Ignored" and kind in ("", "Miss")]
        number += any(category in (None, row[4]) for row in wrong)
    return number


def check_filters(opened: Opened, data: Any, thresholds: list[float]) -> set[int]:
    """Compare the numbers of images of all errors, some classes and thresholds; return the numbers."""
    seen = set()
    for step in (0.0, 0.25):
        scores = [round(min(one + step, 1), 2) for one in thresholds]
        for number, score in enumerate(scores):
            opened.set(f"score-{number}" if number else "score", score)
        for category in (None, 0, 1):
            opened.set("class", "" if category is None else category)
            for kind in ERRORS:
                opened.set("error", kind)
                assert opened.count() == expected(data, kind, category, scores), (kind, category, scores)
                seen.add(opened.count())
    return seen


def pictures(folder: Path, names: list[str], size: tuple[int, int], jpegs: int = 6) -> Path:
    """Write JPEGs with the detail of photographs; most are links to a few."""
    folder.mkdir()
    random = np.random.default_rng(2)
    for number, name in enumerate(names):
        if number < jpegs:
            coarse = random.integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
            smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
            fine = random.normal(0, 12, smooth.shape)
            cv2.imwrite(str(folder / name), np.clip(smooth + fine, 0, 255).astype(np.uint8))
        else:
            os.link(folder / names[number % jpegs], folder / name)
    return folder


def last_is_perfect(truth: GroundTruth, found: Results, false: bool) -> Results:
    """Detect all objects of the last image, with a false positive of score 0.1 if requested."""
    last, kept = truth.images == truth.images.max(), found.images != truth.images.max()
    parts = [(found, kept, found.scores), (truth, last, np.full(len(last), 0.95))]
    columns = [
        np.concatenate([getattr(one, name)[rows] for one, rows, _ in parts])
        for name in ("images", "categories", "boxes")
    ]
    scores = np.concatenate([values[rows] for _, rows, values in parts])
    if false:
        extra = (truth.images.max(), 0, [600, 440, 30, 30])
        columns = [np.concatenate([one, [more]]) for one, more in zip(columns, extra, strict=True)]
        scores = np.append(scores, 0.1)
    return results_of(*columns, scores)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages of a report and of a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    truth = grid_truth(30)
    images = pictures(folder / "images", [f"{number}.jpg" for number in range(30)], (480, 640))
    found = [last_is_perfect(truth, noisy(truth, seed, spread), seed == 1) for seed, spread in ((1, 0.2), (2, 0.1))]
    found[0].categories[:300:5] = (found[0].categories[:300:5] + 1) % 3
    files = [write_files(folder, truth, one, f"{name}.json") for name, one in zip("ab", found, strict=True)]
    (gt, a), (_, b) = files
    report(gt=gt, dt=a, images=images, out=folder / "report.html")
    compare([a, b], gt=gt, images=images, out=folder / "compare.html")
    return folder


def thumbnails(opened: Opened) -> None:
    """Check that the images in view are decoded."""
    opened.page.locator(".gallery article").first.scroll_into_view_if_needed()
    opened.page.wait_for_function(f"({LOADED})().length >= 2")
    assert min(opened.page.evaluate(LOADED)) > 0


@pytest.mark.parametrize("name", ["report", "compare"])
def test_filters_and_thumbnails(browser: Any, small: Path, name: str) -> None:
    opened = Opened(browser, small / f"{name}.html")
    data = gallery_data(small / f"{name}.html")
    assert all(image["source"].startswith("data:image/jpeg;base64,") for image in data["images"])
    assert opened.count() == len(data["images"]) == 30
    panels = len(data["detectors"]) + 1
    assert opened.page.locator(".gallery article").first.locator("img").count() == panels
    thumbnails(opened)
    assert opened.page.evaluate(LOADED)[0] == 480
    faded = opened.page.locator(".gallery .faded").count()
    assert (faded == 0) == (name == "compare"), "true positives of a perfect detector are visible"
    assert len(check_filters(opened, data, [one["threshold"] for one in data["detectors"]])) > 5
    opened.set("class", "")
    opened.set("error", "")
    opened.page.click("#filter-more")
    assert opened.page.locator(".gallery article").count() == 30
    assert not opened.page.locator("#filter-more").is_visible()
    opened.close()


def test_a_click_on_a_heading_sorts(browser: Any, small: Path) -> None:
    opened = Opened(browser, small / "report.html")
    cells = "[...document.querySelectorAll('#table-classes tbody td:nth-child(4)')].map((one) => one.textContent)"
    opened.page.click("#table-classes th:nth-child(4) button")
    rising = opened.page.evaluate(cells)
    assert rising == sorted(rising, key=float)
    opened.page.click("#table-classes th:nth-child(4) button")
    assert opened.page.evaluate(cells) == rising[::-1] != rising
    opened.close()


@pytest.mark.parametrize("name", ["report", "compare"])
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_nothing_is_wider_than_the_window(browser: Any, small: Path, name: str, width: int, scheme: str) -> None:
    opened = Opened(browser, small / f"{name}.html", width, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.evaluate(WIDER) == []
    back, text = opened.page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    lightness = [sum(int(part) for part in one.strip("rgb()").split(",")) / 3 for one in (back, text)]
    assert (lightness[0] > lightness[1]) == (scheme == "light")
    assert abs(lightness[0] - lightness[1]) > 150
    opened.screenshot(f"{name}_{width}_{scheme}")
    opened.close()


@pytest.mark.slow
def test_a_large_page_is_small_and_fast(browser: Any, tmp_path: Path) -> None:
    """5,000 images, 80 classes and 500,000 detections: 60 s of CPU time, 30 MB, and 3 s until it is open."""
    gt, dt = write_large(tmp_path)
    images = pictures(tmp_path / "images", [f"{number}.jpg" for number in range(5000)], (640, 640))
    start = time.process_time()
    report(gt=gt, dt=dt, images=images, out=tmp_path / "page.html")
    cpu, size = time.process_time() - start, (tmp_path / "page.html").stat().st_size
    data = gallery_data(tmp_path / "page.html")
    assert len(data["images"]) == 200
    assert all(image["source"].startswith("data:image/jpeg;base64,") for image in data["images"])
    seconds = []
    for width, scheme in LOOKS:
        opened = Opened(browser, tmp_path / "page.html", width, scheme)
        seconds.append(opened.seconds)
        thumbnails(opened)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        opened.screenshot(f"large_{width}_{scheme}")
        if (width, scheme) == LOOKS[0]:
            check_filters(opened, data, [data["detectors"][0]["threshold"]])
        opened.close()
    found = f"{cpu:.1f} s of CPU time, {size / 1e6:.1f} MB, open in {', '.join(f'{one:.2f}' for one in seconds)} s"
    assert cpu < 60, found
    assert size < 30e6, found
    assert max(seconds) < 3, found
