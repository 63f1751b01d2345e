"""What ``tldet finetune`` chooses from the data and the machine, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tldet.config import Config, option_value
from tldet.data.images import fitted_size
from tldet.data.index import AnnotationIndex
from tldet.engine.out_of_memory import place_of
from tldet.engine.precision import pick_device
from tldet.models.replace import replace_backbone
from tldet.structures import Size
from tldet.wording import counted
from tldet.workflows.batch_size import LARGEST, USUAL, WITHOUT_GPU, largest_input, measure_batch_size, most_objects
from tldet.workflows.runs import steps_in_epoch

SMALL_OBJECT = 12.0  # pixels; a tenth of the objects may be smaller than this at the chosen size
LONGEST_LITE, LONGEST_R50 = 640, 1333
LEAST_STEPS, MOST_STEPS = 600, 20_000  # a run with no length given
EPOCHS = 30


@dataclass
class Choices:
    """The chosen values, and why: one line each."""

    short: int
    long: int
    batch: int
    length: dict[str, Any]
    reasons: list[str] = field(default_factory=list)


def choose_for(
    recipe: Config,
    index: AnnotationIndex,
    options: Mapping[str, Any],
    *,
    epochs: int | None,
    minutes: float | None,
    steps: int | None,
    backbone: str | None = None,
) -> Choices:
    """Choose input size, batch size and length for a recipe on a dataset.

    Args:
        recipe: the recipe.
        index: training annotations.
        options: user-specified config keys; of interest are the batch size, the device and the precision.
        epochs: user-specified length, as are ``minutes`` and ``steps``.
        minutes: see above.
        steps: see above.
        backbone: user-specified backbone.
    """
    device = pick_device(str(option_value(options, "training.device") or "auto"))
    short, long, why_size = _size(is_small(recipe), index, device)
    batch, why_batch = _batch(recipe, index, (short, long), device, options, backbone)
    length, why_length = choose_length(len(index), batch, epochs, minutes, steps)
    return Choices(short, long, batch, length, reasons=[why_size, why_batch, why_length])


def given_batch(options: Mapping[str, Any]) -> int | None:
    """Return the batch size that options of the config give; None without one, and for ``auto``."""
    value = option_value(options, "data.loader.batch_size")
    return value if type(value) is int and value > 0 else None


def is_small(recipe: Config) -> bool:
    """Whether a recipe is one of the small ones, by its own backbone."""
    return "efficientnet_lite0" in str(recipe.get("model.backbone.name"))


def usual_size(small: bool) -> tuple[int, int]:
    """Short side, and the most of the long one, that the small and the large recipes are made for."""
    return (320, LONGEST_LITE) if small else (800, LONGEST_R50)


def _size(small: bool, index: AnnotationIndex, device: torch.device) -> tuple[int, int, str]:
    """Choose a size at which few objects are too small to find, but no larger than the images are."""
    base, longest = usual_size(small)
    if device.type == "cpu" and not small:
        base = 480
    height, width = np.median(index.sizes, axis=0)
    native = int(min(height, width))
    boxes = index.boxes
    side = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])) if len(boxes) else np.array([64.0])
    tenth = float(np.quantile(side, 0.1))
    needed = int(native * SMALL_OBJECT / max(tenth, 1e-6))
    ratio = max(height, width) / native
    short = min(max(min(base, native), needed), max(base, native), max(base, int(longest / ratio)))
    short = max(32, round(short / 32) * 32)
    long = round(short * max(4 / 3, min(2.0, ratio)) / 32) * 32 if small else max(LONGEST_R50 * short // 800, short)
    seen = f"images {int(width)}x{int(height)}; 10th percentile of object size {tenth:.0f} px"
    return short, long, f"input size {short}x{long} ({seen})"


def _batch(
    recipe: Config,
    index: AnnotationIndex,
    size: Size,
    device: torch.device,
    options: Mapping[str, Any],
    backbone: str | None,
) -> tuple[int, str]:
    """Return the user-specified batch size, the largest that fits on the GPU, or a small one for the CPU."""
    images = len(index)
    if (given := given_batch(options)) is not None:
        return given, f"batch size {given} (user-specified)"
    if device.type == "cpu":
        base = int(recipe.get("data.loader.batch_size", WITHOUT_GPU)) if is_small(recipe) else 2
        auto = option_value(options, "data.loader.batch_size") == "auto"
        batch = min(WITHOUT_GPU if auto else base, images)  # as `tldet train` chooses
        return batch, f"batch size {batch} (CPU, {counted(os.cpu_count() or 1, 'core')})"
    model = recipe["model"] if backbone is None else replace_backbone(recipe["model"], backbone)[0]
    head = {**model["head"], "num_classes": len(index.class_names)}
    resize = transforms(Choices(*size, 1, {}))[0][0]
    bounds = max(resize["short"]), resize["long"]
    sizes = np.array([fitted_size((height, width), *bounds) for height, width in index.sizes.tolist()])
    batch = measure_batch_size(
        {**model, "head": head},
        largest_input(sizes),
        most_objects(index),
        precision=str(option_value(options, "training.precision") or "auto"),
        most=min(LARGEST if option_value(options, "data.loader.batch_size") == "auto" else USUAL, images),
        device=device,
    )
    return batch, f"batch size {batch} (measured on {place_of(device)})"


def choose_length(
    pictures: int, batch: int, epochs: int | None, minutes: float | None, steps: int | None
) -> tuple[dict[str, Any], str]:
    """Return the user's length, or about thirty epochs, with a log line."""
    if epochs is not None:
        return {"epochs": epochs}, f"training length {counted(epochs, 'epoch')} (user-specified)"
    if minutes is not None:
        return {"minutes": minutes}, f"training time {minutes:g} min (user-specified)"
    if steps is not None:
        return {"steps": steps}, f"training length {counted(steps, 'step')} (user-specified)"
    an_epoch = steps_in_epoch(pictures, batch)
    total = min(max(EPOCHS * an_epoch, LEAST_STEPS), MOST_STEPS)
    about = f"about {counted(round(total / an_epoch), 'epoch')} of {counted(pictures, 'image')}"
    return {"steps": total}, f"training length {counted(total, 'step')} ({about})"


def transforms(choices: Choices) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The steps for training and for measuring."""
    s = choices.short
    several = [round(s * factor / 32) * 32 for factor in (0.9, 1.0, 1.1)]
    train: list[dict[str, Any]] = [
        {"type": "Resize", "short": sorted(set(several)), "long": round(choices.long * 1.1 / 32) * 32, "draw": "batch"},
        {"type": "HorizontalFlip", "p": 0.5},
        {"type": "ColorJitter", "p": 0.3},
    ]
    return train, [{"type": "Resize", "short": s, "long": choices.long}]
