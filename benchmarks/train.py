"""Training step, compared with torchvision, and overhead of the trainer.

On both sides, stem and layer1 are frozen and every BatchNorm keeps its statistics, as in fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.child import HOW, Served
from benchmarks.infer import random_image
from benchmarks.machine import PEAK, machine_peak
from benchmarks.overhead import trainer_row
from benchmarks.pairs import CLASSES, PAIRS, Pair, chosen_pairs, share_weights
from benchmarks.peer import RATE
from benchmarks.report import Memory, PeakShare, Row, Suite
from benchmarks.suites import Bench
from tldet.cli.process import keep_freed_memory
from tldet.engine.precision import Precision, choose
from tldet.engine.step import Stepper
from tldet.models.detector import Detector
from tldet.models.surgery.frozen_norms import fold_frozen_norms
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.system.determinism import deterministic

SIZE, QUICK_SIZE, BATCH = (480, 640), (96, 128), 2
OBJECTS = 8  # per image


def run(bench: Bench) -> Suite:
    """Compare every pair, then the trainer with a bare loop."""
    pairs, skipped = chosen_pairs(bench.models)
    suite = Suite("train", skipped=skipped)
    size = bench.size or (QUICK_SIZE if bench.quick else SIZE)
    for pair in pairs:
        suite.rows += _rows(bench, pair, size)
    suite.rows.append(trainer_row(bench))
    return suite


def _rows(bench: Bench, pair: Pair, size: tuple[int, int]) -> list[Row]:
    bench.show(f"{pair.recipe}: building both sides")
    theirs, ours = pair.theirs(size), pair.ours()
    checks = {"weights": share_weights(theirs, ours)}
    fold_frozen_norms(ours.backbone.freeze())  # type: ignore[operator]
    given: dict[str, Any] = {"size": list(size), "count": bench.batch or BATCH, "masks": pair.masks}
    batch = make_batch(size, given["count"], with_masks=pair.masks)
    bench.show(f"{pair.recipe}: choosing the precision")
    ours.train()
    chosen = choose(ours, "cpu", "auto", lambda: total_loss(ours, batch), f"training {size} {given['count']}")
    checks["chosen precision"] = chosen.describe()
    work = _flops(ours, batch)
    paths = [str(bench.folder / f"{pair.recipe}_{side}.pt") for side in ("ours", "theirs", "batch")]
    torch.save(ours.state_dict(), paths[0])
    torch.save(theirs.state_dict(), paths[1])
    torch.save(_as_theirs(batch, int(pair.background)), paths[2])
    peer = {"factory": pair.factory, "size": list(size), "classes": CLASSES, "weights": paths[1], "inputs": paths[2]}
    precisions = [chosen] if chosen.name == "fp32" else [chosen, Precision()]
    rows = []
    for precision in precisions:
        own = {"recipe": pair.recipe, "weights": paths[0], "precision": precision.name, **given}
        rows.append(_row(bench, f"{pair.recipe} in {precision.name}", (own, peer), (work, precision, checks)))
    return rows


def _row(bench: Bench, name: str, sides: Any, about: Any) -> Row:
    work, precision, checks = about
    own, peer = sides
    with (
        Served("benchmarks.train:training", **own) as ours,
        Served("benchmarks.peer:training", **peer) as theirs,
    ):
        comparison = bench.compare(name, ours, theirs, 10, warmup=2, self_timed=True)
    memory = Memory(ours.peak_mb, theirs.peak_mb, HOW)
    peak = PeakShare(work / comparison.ours.median / machine_peak(precision.dtype), PEAK)
    each = f"step of {own['count']}x{own['size'][0]}x{own['size'][1]}"
    return Row(name, "torchvision in fp32", comparison, each, memory, peak, checks)


def _as_theirs(batch: Batch, first: int) -> dict[str, Any]:
    """Return the batch in the format of torchvision, for :mod:`benchmarks.peer`."""
    targets = []
    for target in batch.targets:
        entry = {"boxes": target.boxes, "labels": target.labels + first}
        targets.append(entry if target.masks is None else {**entry, "masks": target.masks})
    return {"images": batch.images, "targets": targets}


def make_batch(
    size: tuple[int, int], count: int, *, objects: int = OBJECTS, classes: int = 80, with_masks: bool = False
) -> Batch:
    """Create images with objects of random positions, sizes and classes."""
    random = np.random.default_rng(0)
    targets = []
    for number in range(count):
        side = np.exp(random.uniform(np.log(0.05), np.log(0.6), (objects, 2))) * (size[1], size[0])
        corner = random.uniform(0, 1, (objects, 2)) * ((size[1], size[0]) - side)
        boxes = torch.from_numpy(np.concatenate([corner, corner + side], 1)).float()
        labels = torch.from_numpy(random.integers(0, classes, objects))
        masks = torch.stack([_inside(box, size) for box in boxes]) if with_masks else None
        targets.append(Target(boxes, labels, torch.zeros(objects, dtype=torch.bool), number, masks))
    images = np.stack([random_image(size, number).transpose(2, 0, 1) for number in range(count)])
    return Batch(torch.from_numpy(images), [size] * count, targets, [size] * count)


def _inside(box: Tensor, size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size, dtype=torch.uint8)
    x0, y0, x1, y1 = box.round().int().tolist()
    mask[y0:y1, x0:x1] = 1
    return mask


def our_step(ours: Detector, batch: Batch, precision: Precision) -> Callable[[], None]:
    """Return a function that runs forward, backward and optimizer step as the trainer does."""
    ours.train()
    precision.prepare(ours)
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], RATE, 0.9)
    stepper = Stepper(ours, optimizer, precision)

    def step() -> None:
        with deterministic(torch.device("cpu")):
            stepper([batch])

    return step


def total_loss(ours: Detector, batch: Batch) -> Tensor:
    """Return the sum of the losses of a batch."""
    return torch.stack(list(ours.loss(batch).values())).sum()


def _flops(ours: Detector, batch: Batch) -> int:
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(total_loss(ours, batch))
    ours.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def training(recipe: str, weights: str, precision: str, size: list[int], count: int, masks: bool) -> Callable[[], None]:
    """Return a training step as in ``tldet train``, for :class:`Served`."""
    keep_freed_memory()
    ours = next(pair for pair in PAIRS if pair.recipe == recipe).ours()
    ours.load_state_dict(torch.load(weights, weights_only=True))
    fold_frozen_norms(ours.backbone.freeze())  # type: ignore[operator]
    batch = make_batch((size[0], size[1]), count, with_masks=masks)
    return our_step(ours, batch, Precision(precision))  # type: ignore[arg-type]
