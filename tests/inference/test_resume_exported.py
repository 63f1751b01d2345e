"""``tldet predict`` with an exported detector, killed ten times and in three shards: the results of one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import tldet
from tldet.workflows.export.export import export
from tldet.workflows.predict.merge_results import merge_results

IMAGES = int(os.environ.get("TLDET_RESUME_IMAGES", "1000"))
KILLS, OBJECTS = 10, 5  # objects per image, about


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    return export(run / "best.pt", "onnx", out=tmp_path_factory.mktemp("exported"), verify=False).path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 64 x 64 pixels with a few rectangles."""
    found, random = tmp_path_factory.mktemp("images"), np.random.default_rng(5)
    for number in range(IMAGES):
        pixels = np.full((64, 64, 3), random.integers(0, 256, 3), np.uint8)
        for x, y, width, height in random.integers(4, 40, (3, 4)).tolist():
            cv2.rectangle(pixels, (x, y), (x + width, y + height), random.integers(0, 256, 3).tolist(), -1)
        cv2.imwrite(str(found / f"{number:05d}.png"), pixels)
    return found


def score_of(exported: Path, folder: Path) -> float:
    """The threshold at which a detector that is hardly trained finds some objects on each image."""
    found = tldet.load(exported).predict(sorted(folder.glob("*.png"))[:9], 0.0)
    return float(np.median([one.scores[OBJECTS] for one in found]))


def command(exported: Path, folder: Path, score: float, *given: object) -> list[str]:
    options = [exported, folder, "--score", score, "--threads", 1, *given]
    return [sys.executable, "-m", "tldet.cli", "predict", *map(str, options)]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def killed(given: list[str], results: Path, more: int) -> None:
    """Run until the results file has some more lines, and kill the process."""
    before = lines(results)
    process = subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and lines(results) < before + more:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, f"ended by itself: {errors[-500:]}"


@pytest.mark.slow
def test_killed_runs_and_shards_give_the_results_of_one_run(exported: Path, folder: Path, tmp_path: Path) -> None:
    score = score_of(exported, folder)
    whole, resumed, merged = (tmp_path / f"{name}.json" for name in ("whole", "resumed", "merged"))
    subprocess.run(command(exported, folder, score, "--json", whole), check=True, capture_output=True)
    results, random = tmp_path / "r.jsonl", np.random.default_rng()
    given = command(exported, folder, score, "--json", resumed, "--jsonl", results, "--resume")
    moments = random.integers(2, IMAGES // (KILLS + 1), KILLS).tolist()
    for more in moments:
        killed(given, results, more)
    assert 0 < lines(results) < IMAGES
    subprocess.run(given, check=True, capture_output=True)
    assert resumed.read_bytes() == whole.read_bytes(), f"killed after {moments} results"
    paths = [line["path"] for line in map(json.loads, results.read_text().splitlines()) if "detections" in line]
    assert len(paths) == len(set(paths)) == IMAGES
    records = json.loads(whole.read_bytes())
    assert len({record["file_name"] for record in records}) > IMAGES / 2
    for number in (1, 2, 3):
        shard = ["--jsonl", tmp_path / "s.jsonl", "--shard", f"{number}/3"]
        subprocess.run(command(exported, folder, score, *shard), check=True, capture_output=True)
    found = merge_results([tmp_path / f"s.{number}-of-3.jsonl" for number in (2, 3, 1)], json=merged)
    assert (found.images, found.missing, found.repeated, found.failed) == (IMAGES, 0, 0, {})
    assert merged.read_bytes() == whole.read_bytes()
    print(f"{IMAGES} images, {len(records)} detections, killed after {moments} further results")  # noqa: T201
