"""Validation of detections: types, shapes and values of their fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tldet.structures.detections import Detections


def validate(found: Detections) -> None:
    """Check the fields of detections; values are checked on the CPU only.

    Raises:
        ValueError: a shape or value is wrong.
        TypeError: a field has another type.
    """
    _check_types(found)
    count = len(found.boxes) if found.boxes.ndim else 0
    if found.boxes.shape != (count, 4):
        raise ValueError(f"boxes must be (N, 4), not {tuple(found.boxes.shape)}")
    for name in ("scores", "labels"):
        shape = tuple(getattr(found, name).shape)
        if shape != (count,):
            raise ValueError(f"{name} must be ({count},) like the boxes, not {shape}")
    if found.masks is not None:
        shape = tuple((found.masks if isinstance(found.masks, Tensor) else found.masks.patches).shape)
        if len(shape) != 3 or shape[0] != count:
            raise ValueError(f"masks must be ({count}, H, W), not {shape}")
    if count and found.boxes.device.type == "cpu":
        _check_values(found)


def _check_types(found: Detections) -> None:
    for name in ("boxes", "scores", "labels"):
        value = getattr(found, name)
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(value).__name__}")
        if value.is_floating_point() == (name == "labels") or value.dtype == torch.bool:
            raise TypeError(f"{name} must be {'int64' if name == 'labels' else 'float'}, not {value.dtype}")
    if isinstance(found.class_names, str):
        raise TypeError(f"class_names must be a sequence of names, not the text {found.class_names!r}")


def _check_values(found: Detections) -> None:
    inverted = (found.boxes[:, 2:] < found.boxes[:, :2]).any(1)
    if bool(inverted.any()):
        row = int(inverted.nonzero()[0])
        raise ValueError(f"box {row} must have x1 >= x0 and y1 >= y0: {found.boxes[row].tolist()}")
    if found.labels.device.type == "cpu" and int(found.labels.min()) < 0:
        row = int((found.labels < 0).nonzero()[0])
        raise ValueError(f"label {row} must be 0 or more, not {int(found.labels[row])}")
