"""One training step beside torchvision's, and what the trainer costs beside a bare loop.

Stem and layer1 are frozen and every BatchNorm keeps its statistics, on both sides, as in fine-tuning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import FrozenBatchNorm2d

from tldet.benchmarks.child import HOW, in_child
from tldet.benchmarks.infer import random_picture
from tldet.benchmarks.machine import product_peak
from tldet.benchmarks.overhead import trainer_row
from tldet.benchmarks.pairs import PAIRS, Pair, chosen_pairs, share_weights, spread_weights
from tldet.benchmarks.report import Limit, Memory, Row, Suite
from tldet.benchmarks.suites import Bench
from tldet.engine.precision import Precision, choose
from tldet.engine.state import deterministic
from tldet.engine.step import Stepper
from tldet.models.detector import Detector
from tldet.structures import Batch, Target

SIZE, QUICK_SIZE, BATCH = (480, 640), (96, 128), 2
OBJECTS = 8  # a picture
RATE = 1e-9  # so small that every step is the same work
FROZEN = ("conv1", "bn1", "layer1")


def run(bench: Bench) -> Suite:
    """Every pair that learns boxes, then the trainer's own part."""
    pairs, skipped = chosen_pairs(bench.models)
    suite = Suite("train", skipped=skipped)
    size = bench.size or (QUICK_SIZE if bench.quick else SIZE)
    for pair in pairs:
        suite.rows += _rows(bench, pair, size)
    suite.rows.append(trainer_row(bench))
    return suite


def _rows(bench: Bench, pair: Pair, size: tuple[int, int]) -> list[Row]:
    bench.tell(f"{pair.recipe}: building both sides")
    count = bench.batch or BATCH
    theirs, ours = _theirs(pair, size), pair.ours()
    weights = share_weights(theirs, ours)
    _frozen(theirs)
    ours.backbone.freeze()  # type: ignore[operator]
    batch = make_batch(size, count, with_masks=pair.masks)
    bench.tell(f"{pair.recipe}: choosing the number format")
    ours.train()
    chosen = choose(ours, "cpu", "auto", lambda: _loss(ours, batch), f"training {size} {count}")
    checks = {"weights": weights, "chosen format": chosen.describe()}
    fp32 = Precision(reason="as asked")
    precisions = [chosen] if chosen.name == "fp32" else [chosen, fp32]
    work = _flops(ours, batch)
    step = their_step(theirs, batch, pair)
    return [_row(bench, pair, (our_step(ours, batch, p), step, p), (work, size, count, checks)) for p in precisions]


def _row(bench: Bench, pair: Pair, sides: Any, about: Any) -> Row:
    ours, theirs, precision = sides
    work, size, count, checks = about
    name = f"{pair.recipe} in {precision.name}"
    comparison = bench.compare(name, ours, theirs, 10, warmup=2)
    share = work / comparison.ours.median / product_peak(precision.dtype)
    bench.tell(f"{name}: peak memory")
    given = {"recipe": pair.recipe, "size": list(size), "count": count, "precision": precision.name}
    ours_mb, theirs_mb = (
        in_child("tldet.benchmarks.train:peak", side=side, **given)["peak_mb"] for side in ("ours", "theirs")
    )
    limit = Limit(share, f"of the {precision.name} matrix product")
    each = f"step of {count} x {size[0]} x {size[1]}"
    return Row(name, "torchvision in fp32", comparison, each, Memory(ours_mb, theirs_mb, HOW), limit, checks)


def _theirs(pair: Pair, size: tuple[int, int]) -> nn.Module:
    theirs = pair.theirs(size)
    spread_weights(theirs)
    return theirs


def _frozen(theirs: nn.Module) -> None:
    """What torchvision does to a pretrained backbone: norms that do not learn, stem and layer1 frozen."""
    body: Any = theirs.backbone.body  # type: ignore[union-attr]
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                norm = FrozenBatchNorm2d(child.num_features, child.eps)
                norm.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, norm)
    for name, parameter in body.named_parameters():
        if name.startswith(FROZEN):
            parameter.requires_grad_(False)


def make_batch(
    size: tuple[int, int], count: int, *, objects: int = OBJECTS, classes: int = 80, with_masks: bool = False
) -> Batch:
    """Pictures with objects of random places, sizes and classes."""
    random = np.random.default_rng(0)
    targets = []
    for number in range(count):
        side = np.exp(random.uniform(np.log(0.05), np.log(0.6), (objects, 2))) * (size[1], size[0])
        corner = random.uniform(0, 1, (objects, 2)) * ((size[1], size[0]) - side)
        boxes = torch.from_numpy(np.concatenate([corner, corner + side], 1)).float()
        labels = torch.from_numpy(random.integers(0, classes, objects))
        masks = torch.stack([_inside(box, size) for box in boxes]) if with_masks else None
        targets.append(Target(boxes, labels, torch.zeros(objects, dtype=torch.bool), number, masks))
    pictures = np.stack([random_picture(size, number).transpose(2, 0, 1) for number in range(count)])
    return Batch(torch.from_numpy(pictures), [size] * count, targets, [size] * count)


def _inside(box: Tensor, size: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size, dtype=torch.uint8)
    x0, y0, x1, y1 = box.round().int().tolist()
    mask[y0:y1, x0:x1] = 1
    return mask


def our_step(ours: Detector, batch: Batch, precision: Precision) -> Callable[[], None]:
    """Forward, backward and optimizer as the trainer takes them."""
    ours.train()
    precision.prepare(ours)
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], RATE, 0.9)
    stepper = Stepper(ours, optimizer, precision)

    def step() -> None:
        with deterministic(torch.device("cpu")):
            stepper([batch])

    return step


def their_step(theirs: nn.Module, batch: Batch, pair: Pair) -> Callable[[], None]:
    """The same as torchvision's reference script takes it."""
    theirs.train()
    images = [image.float() / 255 for image in batch.images]
    targets = []
    for target in batch.targets:
        entry = {"boxes": target.boxes, "labels": target.labels + int(pair.background)}
        targets.append(entry if target.masks is None else {**entry, "masks": target.masks})
    optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], RATE, 0.9)

    def step() -> None:
        losses: Mapping[str, Tensor] = theirs(images, [dict(target) for target in targets])
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()

    return step


def _loss(ours: Detector, batch: Batch) -> Tensor:
    return torch.stack(list(ours.loss(batch).values())).sum()


def _flops(ours: Detector, batch: Batch) -> int:
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(_loss(ours, batch))
    ours.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def peak(recipe: str, side: str, size: list[int], count: int, precision: str) -> None:
    """Two steps in a process of their own, for :func:`in_child`."""
    pair = next(pair for pair in PAIRS if pair.recipe == recipe)
    sides = (size[0], size[1])
    batch = make_batch(sides, count, with_masks=pair.masks)
    if side == "ours":
        ours = pair.ours()
        spread_weights(ours)
        ours.backbone.freeze()  # type: ignore[operator]
        step = our_step(ours, batch, Precision(precision))  # type: ignore[arg-type]
    else:
        theirs = _theirs(pair, sides)
        _frozen(theirs)
        step = their_step(theirs, batch, pair)
    for _ in range(2):
        step()
