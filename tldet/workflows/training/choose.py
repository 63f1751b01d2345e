"""Input size, batch size and length that ``tldet finetune`` chooses for the data and the hardware."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from tldet.config import Config, option_value
from tldet.data.index import AnnotationIndex
from tldet.errors import ConfigError
from tldet.models.replace import replace_backbone
from tldet.runtime.images import fitted_size
from tldet.structures.image import LARGEST_SIDE
from tldet.system.device import pick_device
from tldet.system.out_of_memory import describe_device
from tldet.text import counted
from tldet.transfer.freeze import FreezeSettings
from tldet.workflows.training.augmentation import AUTO, Augment, choose_preset
from tldet.workflows.training.batch_size import (
    LARGEST,
    USUAL,
    WITHOUT_GPU,
    largest_input,
    measure_batch_size,
    most_objects,
)
from tldet.workflows.training.recipes import foreign_resize, largest_size, split_transforms
from tldet.workflows.training.run_config import steps_in_epoch
from tldet.workflows.training.run_options import Length

SMALL_OBJECT = 12.0  # pixels; 10th percentile of object size at the chosen input size
LONGEST_LITE, LONGEST_R50 = 640, 1333
LEAST_STEPS, MOST_STEPS = 600, 20_000  # default length
_EPOCHS = 30  # default length


@dataclass
class Choices:
    """Chosen values, and a log line for each."""

    short: int
    long: int
    batch: int
    length: Length
    augment: Augment = ()
    reasons: list[str] = field(default_factory=list)


def choose_for(
    recipe: Config,
    index: AnnotationIndex,
    options: Mapping[str, Any],
    length: Length | None,
    backbone: str | None = None,
    augment: Augment = (),
    input_size: str | None = None,
    freezing: FreezeSettings | None = None,
) -> Choices:
    """Choose input size, batch size and length for a recipe on a dataset.

    Args:
        recipe: the recipe.
        index: training annotations.
        options: user-specified config keys, of which batch size, device and precision are used.
        length: user-specified length.
        backbone: user-specified backbone.
        augment: user-specified training transforms.
        input_size: user-specified input size, ``SHORT`` or ``SHORTxLONG``.
        freezing: frozen layers.

    Raises:
        TldetError: a value is wrong, or not even one image fits into the memory of the GPU.
    """
    device = pick_device(str(option_value(options, "training.device") or "auto"))
    short, long, why_size = _given_size(input_size) if input_size else _size(recipe, index, device)
    auto = list(augment) == AUTO
    steps = split_transforms(recipe, short, long, () if auto else augment)["train"]
    if (other := foreign_resize(steps)) is not None:
        why_size = f"input size as set by transform {other} of the recipe"
    batch, why_batch = _batch(recipe, index, largest_size(steps, (short, long)), device, options, backbone, freezing)
    chosen, why_length = choose_length(len(index), batch, length)
    reasons = [why_size, why_batch, why_length]
    if auto:
        preset, why = choose_preset(len(index), batch, chosen, fast=device.type != "cpu", small=is_small(recipe))
        augment, reasons = [preset], [*reasons, why]
    return Choices(short, long, batch, chosen, augment, reasons)


def given_batch(options: Mapping[str, Any]) -> int | None:
    """Return the user-specified batch size; None without one, and for ``auto``."""
    value = option_value(options, "data.loader.batch_size")
    return value if type(value) is int and value > 0 else None


def is_small(recipe: Config) -> bool:
    """Return True for a recipe with EfficientNet-Lite0."""
    return "efficientnet_lite0" in str(recipe.get("model.backbone.name"))


def usual_size(recipe: Config) -> tuple[int, int]:
    """Return the input size (short side, limit of the long side) of a recipe, pixels."""
    if is_small(recipe):
        return 320, LONGEST_LITE
    return (640, 640) if recipe.get("model.head.type") == "DFineHead" else (800, LONGEST_R50)


def _given_size(text: str) -> tuple[int, int, str]:
    """Read a user-specified input size.

    Raises:
        ConfigError: it is no size.
    """
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    short = int(found[1]) if found else 0
    long = int(found[2]) if found and found[2] else round(short * LONGEST_R50 / 800)
    if not 32 <= short <= long <= LARGEST_SIDE:
        raise ConfigError(
            f"--input-size {text}: must be SHORT or SHORTxLONG in pixels, such as 320 or 320x512, between 32 and "
            f"{LARGEST_SIDE}"
        )
    return short, long, f"input size {short}x{long} (user-specified)"


def _size(recipe: Config, index: AnnotationIndex, device: torch.device) -> tuple[int, int, str]:
    """Choose a size at which few objects are smaller than SMALL_OBJECT, but not larger than the images."""
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
    freezing: FreezeSettings | None,
) -> tuple[int, str]:
    """Return the user-specified batch size, the largest one that fits on the GPU, or a small one for the CPU."""
    images = len(index)
    if (given := given_batch(options)) is not None:
        return given, f"batch size {given} (user-specified)"
    if device.type == "cpu":
        base = int(recipe.get("data.loader.batch_size", WITHOUT_GPU)) if is_small(recipe) else 2
        auto = option_value(options, "data.loader.batch_size") == "auto"
        batch = min(WITHOUT_GPU if auto else base, images)  # as for `tldet train`
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
        freezing=freezing,
    )
    return batch, f"batch size {batch} (largest that fits on {describe_device(device)})"


def choose_length(images: int, batch: int, given: Length | None) -> tuple[Length, str]:
    """Return the user-specified length, or about 30 epochs, with a log line."""
    if given is not None:
        return given, f"{given} (user-specified)"
    an_epoch = steps_in_epoch(images, batch)
    total = min(max(_EPOCHS * an_epoch, LEAST_STEPS), MOST_STEPS)
    about = f"about {counted(round(total / an_epoch), 'epoch')} of {counted(images, 'image')}"
    chosen = Length("steps", total)
    return chosen, f"{chosen} ({about})"
