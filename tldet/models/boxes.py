"""Box geometry: coding boxes against references, clipping, overlap with crowd regions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000.0 / 16)  # keeps exp() finite; the constant of Detectron and torchvision


def centre_form(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (..., 2) and extents (..., 2) of xyxy boxes (..., 4)."""
    extent = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * extent, extent


def encode(boxes: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """Deltas that carry ``references`` to ``boxes`` (Girshick et al. 2014, appendix C).

    Args:
        boxes: (N, 4) xyxy pixels.
        references: (N, 4) xyxy pixels with a positive extent: anchors or proposals.
        weights: four factors of dx, dy, dw, dh (the inverse of their standard deviations).

    Returns:
        (N, 4) float32.
    """
    centre, extent = centre_form(boxes)
    origin, unit = centre_form(references)
    deltas = torch.cat([(centre - origin) / unit, torch.log(extent / unit)], dim=-1)
    return deltas * deltas.new_tensor(weights)


def decode(deltas: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """The inverse of :func:`encode`; (..., 4) deltas and references give (..., 4) xyxy boxes in float32."""
    deltas = deltas.float() / deltas.new_tensor(weights, dtype=torch.float32)
    origin, unit = centre_form(references)
    centre = deltas[..., :2] * unit + origin
    half = 0.5 * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * unit
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) cut to a picture of ``size`` (height, width)."""
    height, width = size
    return torch.stack(
        [
            boxes[..., 0].clamp(0, width),
            boxes[..., 1].clamp(0, height),
            boxes[..., 2].clamp(0, width),
            boxes[..., 3].clamp(0, height),
        ],
        dim=-1,
    )


def wide_enough(boxes: Tensor, least: float) -> Tensor:
    """(...,) bool: both sides of the box are at least ``least`` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(-1)


def inside_fraction(boxes: Tensor, regions: Tensor) -> Tensor:
    """(N,) the largest share of each box (N, 4) that lies in one of the regions (M, 4); 0 where M is 0."""
    if len(regions) == 0:
        return boxes.new_zeros(len(boxes))
    low = torch.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return (shared / (boxes[:, 2:] - boxes[:, :2]).prod(-1).clamp(min=1e-6)[:, None]).amax(1)
