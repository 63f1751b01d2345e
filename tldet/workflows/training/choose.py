"""What ``tldet finetune`` chooses from the data and the machine, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tldet.config import Config, option_value
from tldet.data.images import fitted_size
from tldet.data.index import AnnotationIndex
from tldet.models.replace import replace_backbone
from tldet.system.device import pick_device
from tldet.system.out_of_memory import place_of
from tldet.text import counted
from tldet.workflows.training.batch_size import LARGEST, USUAL, largest_input, measure_batch_size, most_objects
from tldet.workflows.training.recipes import foreign_resize, largest_size, split_transforms
from tldet.workflows.training.run_config import steps_in_epoch
from tldet.workflows.training.run_options import Length

SMALL_OBJECT = 12.0  # pixels; a tenth of the objects may be smaller than this at the chosen size
LONGEST_LITE, LONGEST_R50 = 640, 1333
LEAST_STEPS, MOST_STEPS = 600, 20_000  # a run with no length given
_EPOCHS = 30


@dataclass
class Choices:
    """The chosen values, and why: one line each."""

    short: int
    long: int
    batch: int
    length: Length
    reasons: list[str] = field(default_factory=list)


def choose_for(
    recipe: Config,
    index: AnnotationIndex,
    options: Mapping[str, Any],
    length: Length | None,
    backbone: str | None = None,
    augment: Sequence[str | Mapping[str, Any]] = (),
) -> Choices:
    """Choose input size, batch size and length for a recipe on a dataset.

    Args:
        recipe: the recipe.
        index: training annotations.
        options: user-specified config keys; of interest are the batch size, the device and the precision.
        length: user-specified length.
        backbone: user-specified backbone.
        augment: user-specified transforms of training.

    Raises:
        TldetError: a value is wrong, or not even one image fits into the memory of the GPU.
    """
    device = pick_device(str(option_value(options, "training.device") or "auto"))
    short, long, why_size = _size(recipe, index, device)
    steps = split_transforms(recipe, short, long, augment)["train"]
    if (other := foreign_resize(steps)) is not None:
        why_size = f"input size as set by transform {other} of the recipe"
    batch, why_batch = _batch(recipe, index, largest_size(steps, (short, long)), device, options, backbone)
    chosen, why_length = choose_length(len(index), batch, length)
    return Choices(short, long, batch, chosen, reasons=[why_size, why_batch, why_length])


def given_batch(options: Mapping[str, Any]) -> int | None:
    """Return the batch size that options of the config give; None without one, and for ``auto``."""
    value = option_value(options, "data.loader.batch_size")
    return value if type(value) is int and value > 0 else None


def is_small(recipe: Config) -> bool:
    """Whether a recipe is one of the small ones, by its own backbone."""
    return "efficientnet_lite0" in str(recipe.get("model.backbone.name"))


def usual_size(recipe: Config) -> tuple[int, int]:
    """Return the short side and the limit of the long side that a recipe is made for, pixels."""
    if is_small(recipe):
        return 320, LONGEST_LITE
    return (640, 640) if recipe.get("model.head.type") == "DFineHead" else (800, LONGEST_R50)


def _size(recipe: Config, index: AnnotationIndex, device: torch.device) -> tuple[int, int, str]:
    """Choose a size at which few objects are too small to find, but no larger than the images are."""
    small, (usual, longest) = is_small(recipe), usual_size(recipe)
    base = usual
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
    long = round(short * max(4 / 3, min(2.0, ratio)) / 32) * 32 if small else max(longest * short // usual, short)
    seen = f"images {int(width)}x{int(height)}; 10th percentile of object size {tenth:.0f} px"
    return short, long, f"input size {short}x{long} ({seen})"


def _batch(
    recipe: Config,
    index: AnnotationIndex,
    bounds: tuple[int, int],
    device: torch.device,
    options: Mapping[str, Any],
    backbone: str | None,
) -> tuple[int, str]:
    """Return the user-specified batch size, the largest that fits on the GPU, or a small one for the CPU."""
    images = len(index)
    if (given := given_batch(options)) is not None:
        return given, f"batch size {given} (user-specified)"
    if device.type == "cpu":
        base = int(recipe.get("data.loader.batch_size", 4)) if is_small(recipe) else 2
        batch = min(base, images)
        return batch, f"batch size {batch} (CPU, {counted(os.cpu_count() or 1, 'core')})"
    model = recipe["model"] if backbone is None else replace_backbone(recipe["model"], backbone)[0]
    head = {**model["head"], "num_classes": len(index.class_names)}
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


def choose_length(images: int, batch: int, given: Length | None) -> tuple[Length, str]:
    """Return the user's length, or about thirty epochs, with a log line."""
    if given is not None:
        return given, f"{given} (user-specified)"
    an_epoch = steps_in_epoch(images, batch)
    total = min(max(_EPOCHS * an_epoch, LEAST_STEPS), MOST_STEPS)
    about = f"about {counted(round(total / an_epoch), 'epoch')} of {counted(images, 'image')}"
    chosen = Length("steps", total)
    return chosen, f"{chosen} ({about})"
