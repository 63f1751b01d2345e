"""Synchronizations per training step of two images and per prediction of two images, for each recipe.

    python tests/cuda/sync_table.py [--sites] [RECIPE ...]

Without recipes, all are counted. ``--sites`` lists the call sites. A first step and a first prediction are not counted:
they create anchors and the state of the optimizer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if "rehearsal" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from rehearsal import Gpu
from torch import Tensor

from tldet.config import override, parse_options, read_config
from tldet.config.files import config_root
from tldet.engine.precision import Precision
from tldet.engine.step import Stepper
from tldet.inference.predictor import Predictor
from tldet.models.detector import Detector, build_detector
from tldet.models.ema import Ema
from tldet.structures.batch import Batch
from tldet.structures.image import Size
from tldet.structures.target import Target

SIZE = (128, 160)
CLASSES = 3


def detector(recipe: str, options: Sequence[str] = ()) -> tuple[Detector, dict[str, Any]]:
    """Return the recipe's detector with random weights, and its ``training`` section; ``options`` set config keys."""
    torch.manual_seed(0)
    config = override(read_config(recipe), parse_options(options)).data
    model = config["model"]
    model["backbone"]["weights"] = None
    model["head"]["num_classes"] = CLASSES
    if "rpn" in model["head"]:
        model["head"]["rpn"]["nms_post"] = [200, 100]  # the second stage takes less time, and no synchronization more
    built = build_detector(model, [f"class {i}" for i in range(CLASSES)])
    built.backbone.freeze()  # type: ignore[operator]
    return built, config.get("training") or {}


def target(image_id: int, size: Size = SIZE) -> Target:
    """Return two objects for images 0 and 1, and a crowd region for images 1 and 3 (modulo 4)."""
    height, width = size
    shares = torch.tensor([[0.1, 0.1, 0.4, 0.6], [0.3, 0.2, 0.9, 0.9], [0.0, 0.6, 0.4, 1.0]])
    rows = {0: [0, 1], 1: [0, 1, 2], 2: [], 3: [2]}[image_id % 4]
    boxes = (shares * torch.tensor([width, height] * 2)).round()[rows]
    masks = torch.zeros(len(rows), *size, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    crowd = torch.tensor([row == 2 for row in rows], dtype=torch.bool)
    return Target(boxes, torch.arange(len(rows)) % CLASSES, crowd, image_id, masks)


def batch(ids: Sequence[int], seed: int = 0, size: Size = SIZE) -> Batch:
    """Return images with targets on the host."""
    images = torch.randint(0, 256, (len(ids), 3, *size), dtype=torch.uint8)
    return Batch(images, [size] * len(ids), [target(i, size) for i in ids], [size] * len(ids), seed=seed)


def count(gpu: Gpu, recipe: str) -> tuple[int, int, str]:
    """Return the synchronizations of a training step and of a prediction, and both tables of call sites."""
    model, training = detector(recipe)
    model.to("cuda").train()
    precision = Precision("bf16", "cuda")
    precision.prepare(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    stepper = Stepper(model, optimizer, precision, training.get("clip_norm"))
    ema = Ema(model, training["ema"]) if training.get("ema") else None
    for step in range(2):
        gpu.reset()
        stepper([batch([0, 1], step)])
        if ema:
            ema.update(step + 1)
    train, table = gpu.total(), gpu.table()
    predictor = Predictor(model, range(CLASSES), short=SIZE[0], long=SIZE[1], precision=precision)
    images: list[Any] = [np.full((*SIZE, 3), value, np.uint8) for value in (90, 160)]
    for _ in range(2):
        gpu.reset()
        found = predictor.predict(images)
    assert all(isinstance(one.boxes, Tensor) and not one.boxes.is_cuda for one in found)
    return train, gpu.total(), f"{table}\n\n{gpu.table()}"


def main(recipes: list[str], sites: bool) -> None:
    sys.stdout.write(f"{'recipe':28s} {'step':>5s} {'prediction':>10s}\n")
    for recipe in recipes:
        with Gpu() as gpu:
            train, predict, table = count(gpu, recipe)
        sys.stdout.write(f"{recipe:28s} {train:5d} {predict:10d}\n" + (f"{table}\n" if sites else ""))
        sys.stdout.flush()


if __name__ == "__main__":
    given = [name for name in sys.argv[1:] if name != "--sites"]
    main(given or sorted(path.stem for path in (config_root() / "recipes").glob("*.py")), "--sites" in sys.argv)
