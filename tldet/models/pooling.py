"""Regions cut out of a feature pyramid at a fixed size: RoIAlign from the level that fits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from tldet.device import constant
from tldet.models.boxes import area

CANONICAL_SIZE, CANONICAL_STRIDE = 224, 16  # a 224 pixel box belongs to the level of stride 16


class Pool(NamedTuple):
    """Sampling of a region: grid size, samples per cell and axis, and position of the cell centers of a level.

    Cell i is centered at (i + 0.5 + offset) strides if ``aligned``, else at (i + offset) strides.
    """

    side: int
    sampling_ratio: int
    aligned: bool
    offset: float = 0.0


def as_floats(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the features in float32: converted once, although each stage pools from them."""
    return tuple(feature.float() for feature in features)


def pool_regions(features: Sequence[Tensor], rois: Sequence[Tensor], strides: Sequence[int], pool: Pool) -> Tensor:
    """RoIAlign (He et al. 2017) from the level that fits each region (Lin et al. 2017, equation 1).

    On a GPU this is torchvision's kernel, level by level. On a processor that kernel runs in one thread and scatters
    gradients channel by channel; the same sums are taken here as one weighted gather of whole channel vectors from all
    levels, several times faster.

    Args:
        features: one (B, C, H, W) a level; those of :func:`as_floats` are not converted again.
        rois: B x (r, 4) xyxy pixels.
        strides: stride of every level.
        pool: the grid.

    Returns:
        (R, C, S, S) float32, differentiable in ``features``.
    """
    boxes = torch.cat(list(rois))
    picture = torch.cat([torch.full_like(r[:, 0], i, dtype=torch.long) for i, r in enumerate(rois)])
    side = area(boxes).sqrt()
    finest = math.log2(strides[0] / CANONICAL_STRIDE)
    level = torch.floor(torch.log2(side / CANONICAL_SIZE) + 1e-6 - finest).clamp(0, len(strides) - 1).long()
    if pool.offset:
        boxes = boxes - pool.offset * constant(strides, boxes)[level, None]
    floats = as_floats(features)
    if boxes.device.type != "cpu" or pool.sampling_ratio < 1:
        return _by_level(floats, level, picture, boxes, strides, pool)
    return _gather(floats, level, picture, boxes, strides, pool)


def _by_level(
    features: Sequence[Tensor], level: Tensor, picture: Tensor, boxes: Tensor, strides: Sequence[int], pool: Pool
) -> Tensor:
    regions = torch.cat([picture[:, None].to(boxes), boxes], 1)
    order = level.argsort(stable=True)
    counts = torch.stack([(level == number).sum() for number in range(len(strides))]).tolist()
    pooled = [
        torchvision.ops.roi_align(feature, some, pool.side, 1 / stride, pool.sampling_ratio, pool.aligned)
        for feature, some, stride in zip(features, torch.split(regions[order], counts), strides, strict=True)
    ]
    return torch.cat(pooled)[order.argsort()]


def _gather(
    features: Sequence[Tensor], level: Tensor, picture: Tensor, boxes: Tensor, strides: Sequence[int], pool: Pool
) -> Tensor:
    """Every pooled cell is a weighted sum of rows of one table that holds the cells of all levels."""
    channels = features[0].shape[1]
    table = torch.cat([f.permute(0, 2, 3, 1).reshape(-1, channels) for f in features])
    before = itertools.accumulate((f.shape[0] * f.shape[2] * f.shape[3] for f in features), initial=0)
    shapes = [(f.shape[2], f.shape[3], start) for f, start in zip(features, before, strict=False)]
    height, width, start = torch.tensor(shapes)[level].unbind(1)  # of each region's level, (R,)
    scale = torch.tensor([1 / stride for stride in strides])[level]
    x, left, right = _corners(boxes[:, 0], boxes[:, 2], width, scale, pool)
    y, above, below = _corners(boxes[:, 1], boxes[:, 3], height, scale, pool)
    row = ((picture * height)[:, None, None] + y) * width[:, None, None] + start[:, None, None]  # (R, S * s, 2)
    cells = row[:, :, None, :, None] + x[:, None, :, None, :]  # (R, S * s, S * s, 2, 2)
    weights = torch.stack([above, below], -1)[:, :, None, :, None] * torch.stack([left, right], -1)[:, None, :, None, :]
    share = _bags(weights / pool.sampling_ratio**2, pool)
    summed = F.embedding_bag(_bags(cells, pool), table, per_sample_weights=share, mode="sum")
    return summed.view(len(boxes), pool.side, pool.side, channels).permute(0, 3, 1, 2)


def _corners(low: Tensor, high: Tensor, cells: Tensor, scale: Tensor, pool: Pool) -> tuple[Tensor, Tensor, Tensor]:
    """Along one axis: the two cells (R, S * s, 2) around every sample and their weights (R, S * s) each.

    Args:
        low: (R,) the regions' near sides in pixels.
        high: (R,) their far sides.
        cells: (R,) how many cells the regions' levels have along the axis.
        scale: (R,) cells a pixel.
        pool: the grid.
    """
    shift = 0.5 if pool.aligned else 0.0
    start = low * scale - shift
    extent = high * scale - shift - start
    bin_size = (extent if pool.aligned else extent.clamp(min=1.0)) / pool.side
    number = torch.arange(pool.side * pool.sampling_ratio, dtype=torch.float32)
    bins = number.div(pool.sampling_ratio, rounding_mode="floor")
    inner = number % pool.sampling_ratio + 0.5
    at = start[:, None] + bins * bin_size[:, None] + inner * bin_size[:, None] / pool.sampling_ratio
    limit = cells[:, None].to(at)
    inside = ((at >= -1.0) & (at <= limit)).float()  # a sample further out counts as zero
    at = at.clamp(min=0.0).minimum(limit - 1)
    first = at.floor()
    rest = at - first
    second = (first + 1).minimum(limit - 1)
    return torch.stack([first, second], -1).long(), (1 - rest) * inside, rest * inside


def _bags(values: Tensor, pool: Pool) -> Tensor:
    """(R, S * s, S * s, 2, 2) values of the samples' corners as one row (4 * s * s) for each of the R * S * S cells."""
    side, ratio = pool.side, pool.sampling_ratio
    split = values.reshape(len(values), side, ratio, side, ratio, 4).transpose(2, 3)
    return split.reshape(-1, 4 * ratio * ratio)
