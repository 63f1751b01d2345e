"""Optimizer steps on the same eight images, split in different ways; as a script, one of the processes of torchrun.

``torchrun ... split_steps.py FOLDER RECIPE...`` writes the gradients of two processes to FOLDER/RECIPE.pt.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tldet.config import read_config
from tldet.engine.distributed import World, process_group
from tldet.engine.precision import Precision
from tldet.engine.step import Stepper
from tldet.models.detector import Detector, build_detector
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.system.determinism import deterministic

SIZE = (64, 96)
CLASSES = 3
FULL, EMPTY = list(range(8)), list(range(8, 16))  # ids of images with objects and without
STEPS = [FULL, [*FULL[:4], *EMPTY[:4]], [8, 9, 5, 10, 11, 2, 12, 13]]


def detector(recipe: str, seed: int = 0, **settings: Any) -> Detector:
    """The recipe's detector with random weights, in training mode, all of its BatchNorms frozen."""
    torch.manual_seed(seed)
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["backbone"]["weights"] = None
    model["head"]["num_classes"] = CLASSES
    if settings:
        model["head"]["settings"].update(settings)
    built = build_detector(model, [f"class {i}" for i in range(CLASSES)])
    built.backbone.freeze()  # type: ignore[operator]
    return frozen(built)


def frozen(model: Any) -> Any:
    """Training mode with the statistics of every BatchNorm as they are."""
    model.train()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    return model


def target(image_id: int) -> Target:
    """Up to four objects, one of them a crowd region in some images; some images are labeled for one class only."""
    random = torch.Generator().manual_seed(image_id)
    count = 0 if image_id in EMPTY else 1 + image_id % 4
    corners = torch.rand(count, 2, generator=random) * torch.tensor([50.0, 30.0])
    boxes = torch.cat([corners, corners + 12 + 34 * torch.rand(count, 2, generator=random)], 1)
    boxes = boxes.clamp(max=torch.tensor([SIZE[1], SIZE[0]] * 2))
    masks = torch.zeros(count, *SIZE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.round().int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    crowd = torch.arange(count) == 2
    labeled = torch.arange(CLASSES) == 0 if image_id in (2, 10) else None
    labels = torch.zeros(count).long() if labeled is not None else torch.arange(count) % CLASSES
    return Target(boxes, labels, crowd, image_id, masks, labeled)


def batch(ids: Sequence[int], seed: int) -> Batch:
    """The images of these ids, whatever stands next to them."""
    images = [torch.randint(0, 255, (3, *SIZE), generator=torch.Generator().manual_seed(i)).byte() for i in ids]
    sizes = [SIZE] * len(ids)
    return Batch(torch.stack(images), sizes, [target(i) for i in ids], sizes, seed=seed)


def steps(model: nn.Module, split: Sequence[int], world: World | None = None) -> list[dict[str, Tensor]]:
    """The gradients of one step after another, and the losses and running means after them.

    Args:
        model: its weights stay as they are.
        split: sizes of the micro-batches, those of process 0 first where there are two.
        world: the processes; each takes its half of the micro-batches.
    """
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), Precision(), world=world)
    found = []
    for number, ids in enumerate(STEPS):
        parts = torch.split(torch.tensor(ids), list(split))
        if world is not None:
            share = len(parts) // world.size
            parts = parts[share * world.rank : share * (world.rank + 1)]
        with deterministic(torch.device("cpu")):
            result = stepper([batch(part.tolist(), seed=number) for part in parts])
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        means = [part.mean(name) for part, name in stepper.normalizers.names]
        found.append({**grads, "(loss)": torch.tensor(result.loss), "(means)": torch.tensor(means)})
    return found


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative difference: of all gradients together, the loss and the running means."""
    assert ours.keys() == theirs.keys()
    grads = [name for name in ours if not name.startswith("(")]
    groups = [grads, ["(loss)"], ["(means)"]]
    return max(
        float(
            torch.stack([(ours[n] - theirs[n]).norm() for n in names]).norm()
            / torch.stack([theirs[n].norm() for n in names]).norm().clamp(min=1e-30)
        )
        for names in groups
    )


def norm(grads: dict[str, Tensor]) -> float:
    """L2 norm of all gradients."""
    return float(torch.stack([g.norm() for name, g in grads.items() if not name.startswith("(")]).norm())


def main(folder: Path, recipes: Sequence[str]) -> None:
    torch.set_num_threads(1)
    with process_group() as world:
        for recipe in recipes:
            unequal = [(1, 2, 3, 2)] if recipe == recipes[0] else []  # three images and five
            found = {split: steps(detector(recipe), split, world) for split in [(4, 4), *unequal]}
            if world.main:
                torch.save(found, folder / f"{recipe}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
