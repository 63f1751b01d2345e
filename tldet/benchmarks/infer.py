"""One picture through a detector, beside torchvision's as it is shipped (fp32).

Both have the same random weights, and a least score at which as many detections come out as a picture may have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tldet.benchmarks.child import HOW, in_child
from tldet.benchmarks.machine import product_peak
from tldet.benchmarks.pairs import PAIRS, Pair, chosen_pairs, share_weights, spread_weights
from tldet.benchmarks.report import Limit, Memory, Row, Suite
from tldet.benchmarks.suites import Bench
from tldet.data.images import Picture
from tldet.engine.fuse import fuse
from tldet.engine.precision import Precision
from tldet.inference.predictor import Predictor, choose_for
from tldet.models.detector import Detector
from tldet.structures import Detections

SIZE, QUICK_SIZE = (800, 1333), (192, 256)
INSTANCES = 100
NEAR = 1.0  # pixels, in which a detection of theirs must be found again
CLOSE = 1e-3  # of its score


def run(bench: Bench) -> Suite:
    """Every pair, with our number format as chosen and in fp32."""
    pairs, skipped = chosen_pairs(bench.models)
    suite = Suite("infer", skipped=skipped)
    size = bench.size or (QUICK_SIZE if bench.quick else SIZE)
    for pair in pairs:
        suite.rows += _rows(bench, pair, size)
    return suite


def _rows(bench: Bench, pair: Pair, size: tuple[int, int]) -> list[Row]:
    bench.tell(f"{pair.recipe}: building both sides")
    theirs, score = lively(pair, size)
    ours = pair.ours(score)
    weights = share_weights(theirs, ours)
    count = bench.batch or 1
    pictures = [random_picture(size, seed) for seed in range(count)]
    floats = [torch.from_numpy(picture).permute(2, 0, 1).float().div(255).contiguous() for picture in pictures]
    reference = detect(theirs, floats)
    work = flops(ours, size) * count
    fp32 = Predictor(fuse(ours.eval()), (), short=min(size), long=max(size), precision=Precision(reason="as asked"))
    checks: dict[str, Any] = {"weights": weights, "detections": f"{len(fp32.predict(pictures[0], 0.0))} and "}
    checks["detections"] += str(len(reference[0]["scores"]))
    if weights == "shared":
        shares = [agreement(a, b, pair) for a, b in zip(reference, fp32.predict(pictures, 0.0, count), strict=True)]
        checks["found again"] = min(shares)
    paths = _saved(bench.folder, pair, ours, theirs)
    rows = [_row(bench, pair, fp32, (theirs, pictures, floats), (work, checks, paths, score))]
    bench.tell(f"{pair.recipe}: choosing the number format")
    chosen = choose_for(ours, torch.device("cpu"), "auto", min(size), max(size))
    if chosen.name == "fp32":
        rows[0].checks["chosen format"] = chosen.describe()
        return rows
    best = Predictor(ours, (), short=min(size), long=max(size), precision=chosen)
    about = {"weights": weights, "chosen format": chosen.describe()}
    return [_row(bench, pair, best, (theirs, pictures, floats), (work, about, paths, score)), *rows]


def _row(bench: Bench, pair: Pair, ours: Predictor, inputs: Any, about: Any) -> Row:
    theirs, pictures, floats = inputs
    work, checks, paths, score = about
    name, count = f"{pair.recipe} in {ours.precision.name}", len(pictures)
    comparison = bench.compare(
        name, lambda: ours.predict(pictures, 0.0, count), lambda: detect(theirs, floats), 12, warmup=2
    )
    share = work / comparison.ours.median / product_peak(ours.precision.dtype)
    bench.tell(f"{name}: peak memory")
    size = list(pictures[0].shape[:2])
    shared = {"recipe": pair.recipe, "size": size, "score": score, "folder": str(paths), "count": count}
    peaks = [
        in_child("tldet.benchmarks.infer:peak", side=side, precision=ours.precision.name, **shared)["peak_mb"]
        for side in ("ours", "theirs")
    ]
    memory = Memory(peaks[0], peaks[1], HOW)
    each = f"picture of {size[0]} x {size[1]}" if count == 1 else f"batch of {count} pictures"
    limit = Limit(share, f"of the {ours.precision.name} matrix product")
    return Row(name, "torchvision in fp32", comparison, each, memory, limit, checks)


def lively(pair: Pair, size: tuple[int, int]) -> tuple[nn.Module, float]:
    """Torchvision's detector with spread weights, and the least score at which 100 detections come out."""
    theirs = pair.theirs(size).eval()
    spread_weights(theirs)
    return theirs, set_score(theirs, size)


def set_score(theirs: nn.Module, size: tuple[int, int], score: float | None = None) -> float:
    """Set torchvision's least score, to one found on a random picture where none is given."""
    head: Any = getattr(theirs, "roi_heads", theirs)
    if score is None:
        head.score_thresh = 0.0
        picture = torch.from_numpy(random_picture(size, 0)).permute(2, 0, 1).float().div(255)
        scores = detect(theirs, [picture])[0]["scores"]
        score = 0.999 * float(scores[: max(INSTANCES, 1)].min()) if len(scores) else 0.0
    head.score_thresh = score
    return score


def random_picture(size: tuple[int, int], seed: int) -> Picture:
    """(H, W, 3) uint8: smooth noise, as photographs are smooth."""
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), np.uint8)


@torch.inference_mode()
def detect(theirs: nn.Module, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    """What torchvision's detector finds."""
    found: list[dict[str, Tensor]] = theirs(pictures)
    return found


def agreement(theirs: dict[str, Tensor], ours: Detections, pair: Pair) -> float:
    """The share of their detections that are among ours: the same class, score and box."""
    labels = ours.labels + int(pair.background)
    same = labels[:, None] == theirs["labels"][None]
    near = torch.cdist(ours.boxes, theirs["boxes"], p=float("inf")) < NEAR
    close = (ours.scores[:, None] - theirs["scores"][None]).abs() < CLOSE
    found = (same & near & close).any(0)
    return float(found.float().mean()) if len(found) else 1.0


def flops(model: Detector, size: tuple[int, int]) -> int:
    """Floating-point operations of one picture, those of convolutions and matrix products."""
    height, width = (-(-side // 32) * 32 for side in size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval().predict_tensor(torch.randn(1, 3, height, width))
    return int(counter.get_total_flops())


def _saved(folder: Path, pair: Pair, ours: Detector, theirs: nn.Module) -> Path:
    """Both sides' weights, for the processes that measure memory."""
    for name, model in (("ours", ours), ("theirs", theirs)):
        torch.save(model.state_dict(), folder / f"{pair.recipe}_{name}.pt")
    return folder


def peak(recipe: str, side: str, size: list[int], score: float, folder: str, count: int, precision: str) -> None:
    """Two predictions in a process of their own, for :func:`in_child`."""
    pair = next(pair for pair in PAIRS if pair.recipe == recipe)
    sides = (size[0], size[1])
    pictures = [random_picture(sides, seed) for seed in range(count)]
    model: Any = fuse(pair.ours(score).eval()) if side == "ours" else pair.theirs(sides).eval()
    model.load_state_dict(torch.load(Path(folder) / f"{recipe}_{side}.pt", weights_only=True))
    if side == "ours":
        chosen = Precision(precision)  # type: ignore[arg-type]
        predictor = Predictor(model, (), short=min(size), long=max(size), precision=chosen)
    else:
        set_score(model, sides, score)
        floats = [torch.from_numpy(picture).permute(2, 0, 1).float().div(255) for picture in pictures]
    for _ in range(2):
        predictor.predict(pictures, 0.0, count) if side == "ours" else detect(model, floats)
