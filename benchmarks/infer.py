"""Prediction on one image, compared with torchvision in its default configuration (fp32), in separate processes.

Both sides have the same random weights, and a score threshold that gives the largest number of detections per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.child import HOW, Served
from benchmarks.exported import FILE_SUFFIXES, compare_files
from benchmarks.machine import PEAK, machine_peak
from benchmarks.pairs import CLASSES, Pair, chosen_pairs, share_weights, write_checkpoint
from benchmarks.peer import detect, set_score
from benchmarks.report import Memory, PeakShare, Row, Suite
from benchmarks.suites import Bench
from tldet.data.loader import as_pixels
from tldet.engine.precision import Precision
from tldet.inference.loading import choose_precision
from tldet.inference.predictor import Predictor
from tldet.models.detector import Detector
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray

SIZE, QUICK_SIZE = (800, 1333), (192, 256)
INSTANCES = 100
NEAR = 1.0  # largest difference of box coordinates of equal detections, in pixels
CLOSE = 1e-3  # largest difference of their scores


def run(bench: Bench) -> Suite:
    """Compare every pair, with the precision that tldet chooses and in fp32; compare files with each other."""
    files = [Path(name) for name in bench.models if Path(name).suffix in FILE_SUFFIXES]
    recipes = tuple(name for name in bench.models if Path(name).suffix not in FILE_SUFFIXES)
    pairs, skipped = chosen_pairs(recipes) if recipes or not files else ([], [])
    suite = Suite("infer", skipped=skipped)
    size = bench.size or (QUICK_SIZE if bench.quick else SIZE)
    images = [random_image(size, seed) for seed in range(bench.batch or 1)]
    for pair in pairs:
        suite.rows += _rows(bench, pair, images)
    if files:
        suite.rows += compare_files(bench, files, images)
    return suite


def _rows(bench: Bench, pair: Pair, images: list[ImageArray]) -> list[Row]:
    bench.show(f"{pair.recipe}: building both sides")
    size = (images[0].shape[0], images[0].shape[1])
    theirs, score = detector_and_threshold(pair, size)
    ours = pair.ours(score).eval()
    work = Work(pair, score, flops(ours, size) * len(images), share_weights(theirs, ours), images, bench.folder)
    work.save(ours, theirs)
    bench.show(f"{pair.recipe}: choosing the precision")
    chosen = choose_precision(ours, torch.device("cpu"), "auto", min(size), max(size))
    precision = {"chosen precision": chosen.describe()}
    checks = _checks(work, ours, theirs)
    if chosen.name == "fp32":
        return [_row(bench, work, chosen, {**checks, **precision})]
    return [_row(bench, work, chosen, precision), _row(bench, work, Precision(), checks)]


@dataclass(frozen=True)
class Work:
    """Work of both sides.

    Attributes:
        pair: the detectors.
        score: score threshold.
        flops: floating-point operations of our side.
        weights: "shared" if both sides have the same weights.
        images: the images.
        folder: folder of weights and images for the processes of both sides.
    """

    pair: Pair
    score: float
    flops: int
    weights: str
    images: list[ImageArray]
    folder: Path

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images."""
        height, width, _ = self.images[0].shape
        return height, width

    @property
    def floats(self) -> list[Tensor]:
        """The images in the format of torchvision."""
        return [as_floats(image) for image in self.images]

    def path(self, what: str) -> str:
        """Return the path of a file of this pair."""
        return str(self.folder / f"{self.pair.recipe}_{what}.pt")

    def save(self, ours: Detector, theirs: nn.Module) -> None:
        """Write the weights of both sides and the images."""
        write_checkpoint(Path(self.path("ours")), self.pair.config(self.score), ours, self.size)
        torch.save(theirs.state_dict(), self.path("theirs"))
        torch.save({"images": [as_pixels(image).contiguous() for image in self.images]}, self.path("images"))


def _checks(work: Work, ours: Detector, theirs: nn.Module) -> dict[str, Any]:
    """Compare the detections of both sides in fp32."""
    short, long = sorted(work.size)
    predictor = Predictor(ours, (), short=short, long=long, precision=Precision())
    found, reference = predictor.predict(work.images, 0.0), detect(theirs, work.floats)
    checks: dict[str, Any] = {"weights": work.weights}
    checks["detections"] = f"{sum(map(len, found))} and {sum(len(one['scores']) for one in reference)}"
    if work.weights == "shared":
        checks["matching detections"] = min(agreement(a, b, work.pair) for a, b in zip(reference, found, strict=True))
    return checks


def _row(bench: Bench, work: Work, precision: Precision, checks: dict[str, Any]) -> Row:
    name, (height, width) = f"{work.pair.recipe} in {precision.name}", work.size
    given = {"checkpoint": work.path("ours"), "precision": precision.name, "inputs": work.path("images")}
    other: dict[str, Any] = {"factory": work.pair.factory, "size": [height, width], "classes": CLASSES}
    other |= {"score": work.score, "weights": work.path("theirs"), "inputs": work.path("images")}
    with (
        Served("benchmarks.own:predicting", **given) as ours,
        Served("benchmarks.peer:predicting", **other) as theirs,
    ):
        comparison = bench.compare(name, ours, theirs, 12, warmup=2, self_timed=True)
    memory = Memory(ours.peak_mb, theirs.peak_mb, HOW)
    peak = PeakShare(work.flops / comparison.ours.median / machine_peak(precision.dtype), PEAK)
    each = f"image of {height}x{width}" if len(work.images) == 1 else f"batch of {len(work.images)} images"
    return Row(name, "torchvision in fp32", comparison, each, memory, peak, checks)


def detector_and_threshold(pair: Pair, size: tuple[int, int]) -> tuple[nn.Module, float]:
    """Return torchvision's detector, and the score threshold that gives 100 detections on a random image."""
    theirs = pair.theirs(size).eval()
    set_score(theirs, 0.0)
    scores = detect(theirs, [as_floats(random_image(size, 0))])[0]["scores"]
    score = 0.999 * float(scores[:INSTANCES].min()) if len(scores) else 0.0
    set_score(theirs, score)
    return theirs, score


def as_floats(image: ImageArray) -> Tensor:
    """Return an image as (3, H, W) float32 in 0..1 for torchvision."""
    return as_pixels(image).contiguous().float() / 255


def random_image(size: tuple[int, int], seed: int) -> ImageArray:
    """Return smooth noise as (H, W, 3) uint8."""
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.uint8)


def agreement(theirs: dict[str, Tensor], ours: Detections, pair: Pair) -> float:
    """Return the share of their detections with an equal class, score and box among ours."""
    labels = ours.labels + int(pair.background)
    same = labels[:, None] == theirs["labels"][None]
    near = torch.cdist(ours.boxes, theirs["boxes"], p=float("inf")) < NEAR
    close = (ours.scores[:, None] - theirs["scores"][None]).abs() < CLOSE
    found = (same & near & close).any(0)
    return float(found.float().mean()) if len(found) else 1.0


def flops(model: Detector, size: tuple[int, int]) -> int:
    """Return the floating-point operations of convolutions and matrix products for one image."""
    height, width = (-(-side // 32) * 32 for side in size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval().predict_tensor(torch.randn(1, 3, height, width))
    return int(counter.get_total_flops())
