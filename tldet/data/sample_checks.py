"""Checks of images and targets that come from outside tldet: from datasets and transforms of the user."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.text import counted

ROUNDING = 0.1  # pixels by which resized boxes may exceed their image


def sample_problem(image: Any, target: Target, *, masks: bool) -> str | None:
    """Describe the first problem of an image and its target; None if they are valid.

    Args:
        image: must be (H, W, 3) uint8.
        target: boxes must lie in the image and have an extent; labels, ``ignore`` and masks must have their length.
        masks: the target must have masks.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        return f"the image must be an array (H, W, 3) of uint8, not {found}"
    return target_problem(target, (image.shape[0], image.shape[1]), masks=masks)


def target_problem(target: Target, size: Size, *, masks: bool) -> str | None:
    """Describe the first problem of the target of an image of ``size`` (height, width); None if it is valid."""
    return _shape_problem(target, size, masks=masks) or _box_problem(target.boxes, size)


def _shape_problem(target: Target, size: Size, *, masks: bool) -> str | None:
    for name in ("boxes", "labels", "ignore"):
        if not isinstance(getattr(target, name), Tensor):
            return f"target.{name} must be a torch tensor, not {type(getattr(target, name)).__name__}"
    count = len(target.boxes)
    if tuple(target.boxes.shape) != (count, 4):
        return f"target.boxes must be (N, 4), not {tuple(target.boxes.shape)}"
    if masks and target.masks is None:
        return "target.masks is None, but the model needs masks"
    if target.masks is not None and tuple(target.masks.shape) != (count, *size):
        return f"target.masks must be {(count, *size)}, not {tuple(target.masks.shape)}"
    lengths = {"labels": len(target.labels), "ignore": len(target.ignore) or count}
    wrong = next((name for name, length in lengths.items() if length != count), None)
    if wrong is None:
        return None
    return f"target.{wrong} has {counted(lengths[wrong], 'entry', 'entries')} for {counted(count, 'box', 'boxes')}"


def _box_problem(boxes: Tensor, size: Size) -> str | None:
    limit = torch.tensor([size[1], size[0]], dtype=boxes.dtype)
    low, high = boxes[:, :2], boxes[:, 2:]
    valid = ((high > low) & (low >= -ROUNDING) & (high <= limit + ROUNDING)).all(1)  # false for NaN
    if bool(valid.all()):
        return None
    row = int((~valid).nonzero()[0])
    box = [round(value, 2) for value in boxes[row].tolist()]
    return (
        f"box {row} {box} must have x1 > x0 and y1 > y0 and lie within the image of {size[1]} x {size[0]} pixels "
        "(x0, y0, x1, y1)"
    )


def ignore_flags(target: Target) -> NDArray[np.bool_]:
    """Return the ignore flags (N,) of a target; a target without flags ignores nothing."""
    return np.asarray(target.ignore, np.bool_) if len(target.ignore) else np.zeros(len(target), np.bool_)
