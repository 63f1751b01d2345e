"""Prediction on a video file, compared with detection alone on the decoded frames."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

from benchmarks.pairs import spread_weights, write_checkpoint
from benchmarks.report import Row, Suite
from benchmarks.suites import Bench
from tldet.config import read_config
from tldet.data.digits import frames
from tldet.inference.loading import load
from tldet.inference.predictor import Predictor
from tldet.inference.threads import grouped
from tldet.inference.video import Video
from tldet.inference.writer import VideoWriter
from tldet.models.detector import build_detector
from tldet.runtime.images import resize_to
from tldet.structures.image import ImageArray
from tldet.workflows.predict.predict import VIDEO_BATCH, predict

RECIPE = "faster_rcnn_lite0"
SIZE, QUICK_SIZE = (360, 640), (96, 160)
FRAMES, QUICK_FRAMES = 120, 6
SHOWN = 10  # boxes drawn per frame


def run(bench: Bench) -> Suite:
    """Compare decoding, detection, drawing and encoding with detection alone."""
    size = bench.size or (QUICK_SIZE if bench.quick else SIZE)
    recipe = bench.models[0] if bench.models else RECIPE
    bench.show(f"{recipe}: writing the clip and the checkpoint")
    clip, count = bench.folder / "clip.mp4", QUICK_FRAMES if bench.quick else FRAMES
    with VideoWriter(clip, Fraction(25)) as writer:
        for frame in frames(count, size=SIZE):
            writer.write(resize_to(frame, size))
    saved = _saved(bench.folder / "random.pt", recipe, size)
    predictor, images = load(saved, "cpu"), [frame.image for frame in Video(clip)]
    score = _score(predictor, images[0])
    boxes = [len(predictor.predict(image, score)) for image in images[:5]]

    def whole() -> float:
        return predict(saved, [clip], out=bench.folder / "drawn", score=score, device="cpu", overwrite=True).seconds

    def alone(batch: int) -> float:
        start = time.perf_counter()
        for group in grouped(images, batch):
            predictor.predict(group, score, batch)
        return time.perf_counter() - start

    rows = []
    for batch in (1, VIDEO_BATCH):
        baseline = "detection alone, batch size 1" if batch == 1 else f"detection alone, batch size {batch}"
        compared = bench.compare(baseline, whole, lambda: alone(batch), 6, self_timed=True).divided(count)  # noqa: B023
        checks = {
            "frames/s": 1 / compared.ours.median,
            "detection alone": 1 / compared.theirs.median,
            "boxes per frame": sum(boxes) / len(boxes),
            "precision": predictor.precision.describe(),
        }
        each = f"frame of {size[0]}x{size[1]}"
        rows.append(Row(f"video with {recipe}", baseline, compared, each, checks=checks))
    return Suite("video", rows)


def _saved(path: Path, recipe: str, size: tuple[int, int]) -> Path:
    """Write a checkpoint with random weights."""
    config = read_config(recipe, {"model.backbone.weights": None, "model.head.num_classes": 10}).data
    model = build_detector(config["model"])
    spread_weights(model)
    return write_checkpoint(path, config, model, size)


def _score(predictor: Predictor, image: ImageArray) -> float:
    """Return the score of the tenth detection, the threshold for a realistic number of drawn boxes."""
    scores = predictor.predict(image, 0.0).scores
    return float(scores[:SHOWN].min()) if len(scores) else 0.0
