"""RoI pooling from a feature pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tldet.models.boxes import area
from tldet.models.ops.roi_align import Pool, roi_align_by_gather, roi_align_by_level
from tldet.system.device import constant

CANONICAL_SIZE, CANONICAL_STRIDE = 224, 16  # a 224 pixel box belongs to the level of stride 16


def as_floats(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Convert features to float32, once for all stages that pool from them."""
    return tuple(feature.float() for feature in features)


def pool_regions(features: Sequence[Tensor], rois: Sequence[Tensor], strides: Sequence[int], pool: Pool) -> Tensor:
    """Pool regions by RoIAlign (He et al. 2017) from the level that fits their size (Lin et al. 2017, equation 1).

    A GPU uses torchvision's kernel, a CPU a faster one (:mod:`tldet.models.ops.roi_align`).

    Args:
        features: one (B, C, H, W) per level; those of :func:`as_floats` are not converted again.
        rois: B x (r, 4) xyxy pixels.
        strides: stride of each level.
        pool: sampling grid.

    Returns:
        (R, C, S, S) float32, differentiable in ``features``.
    """
    boxes = torch.cat(list(rois))
    image = torch.cat([torch.full_like(r[:, 0], i, dtype=torch.long) for i, r in enumerate(rois)])
    side = area(boxes).sqrt()
    finest = math.log2(strides[0] / CANONICAL_STRIDE)
    level = torch.floor(torch.log2(side / CANONICAL_SIZE) + 1e-6 - finest).clamp(0, len(strides) - 1).long()
    if pool.offset:
        boxes = boxes - pool.offset * constant(strides, boxes)[level, None]
    floats = as_floats(features)
    if boxes.device.type != "cpu" or pool.sampling_ratio < 1:
        return roi_align_by_level(floats, level, image, boxes, strides, pool)
    return roi_align_by_gather(floats, level, image, boxes, strides, pool)
