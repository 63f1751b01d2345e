"""RoIAlign on a feature pyramid: a hand-written kernel for CPU and its reference version."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


class Pool(NamedTuple):
    """Sampling of a region: grid size, samples per cell and axis, and position of the cell centers of a level.

    Cell i is centered at (i + 0.5 + offset) strides if ``aligned``, else at (i + offset) strides.
    """

    side: int
    sampling_ratio: int
    aligned: bool
    offset: float = 0.0


def roi_align_by_gather(
    features: Sequence[Tensor], level: Tensor, image: Tensor, boxes: Tensor, strides: Sequence[int], pool: Pool
) -> Tensor:
    """Compute RoIAlign (He et al. 2017) on CPU.

    Each pooled cell is a weighted sum of rows of a table that holds the cells of all levels. Torchvision's kernel runs
    in one thread on CPU and scatters gradients channel by channel; this one is several times faster.

    Args:
        features: one (B, C, H, W) float32 per level.
        level: (R,) level of each region.
        image: (R,) image of each region.
        boxes: (R, 4) xyxy pixels.
        strides: stride of each level.
        pool: sampling grid with a sampling ratio of at least 1.

    Returns:
        (R, C, S, S).
    """
    channels = features[0].shape[1]
    table = torch.cat([f.permute(0, 2, 3, 1).reshape(-1, channels) for f in features])
    before = itertools.accumulate((f.shape[0] * f.shape[2] * f.shape[3] for f in features), initial=0)
    shapes = [(f.shape[2], f.shape[3], start) for f, start in zip(features, before, strict=False)]
    height, width, start = torch.tensor(shapes)[level].unbind(1)  # of each region's level, (R,)
    scale = torch.tensor([1 / stride for stride in strides])[level]
    x, left, right = _corners(boxes[:, 0], boxes[:, 2], width, scale, pool)
    y, above, below = _corners(boxes[:, 1], boxes[:, 3], height, scale, pool)
    row = ((image * height)[:, None, None] + y) * width[:, None, None] + start[:, None, None]  # (R, S * s, 2)
    cells = row[:, :, None, :, None] + x[:, None, :, None, :]  # (R, S * s, S * s, 2, 2)
    weights = torch.stack([above, below], -1)[:, :, None, :, None] * torch.stack([left, right], -1)[:, None, :, None, :]
    share = _bags(weights / pool.sampling_ratio**2, pool)
    summed = F.embedding_bag(_bags(cells, pool), table, per_sample_weights=share, mode="sum")
    return summed.view(len(boxes), pool.side, pool.side, channels).permute(0, 3, 1, 2)


def roi_align_by_level(
    features: Sequence[Tensor], level: Tensor, image: Tensor, boxes: Tensor, strides: Sequence[int], pool: Pool
) -> Tensor:
    """Compute RoIAlign with torchvision's kernel for each level (the reference); see :func:`roi_align_by_gather`."""
    regions = torch.cat([image[:, None].to(boxes), boxes], 1)
    order = level.argsort(stable=True)
    counts = torch.stack([(level == number).sum() for number in range(len(strides))]).tolist()
    pooled = [
        torchvision.ops.roi_align(feature, some, pool.side, 1 / stride, pool.sampling_ratio, pool.aligned)
        for feature, some, stride in zip(features, torch.split(regions[order], counts), strides, strict=True)
    ]
    return torch.cat(pooled)[order.argsort()]


def _corners(low: Tensor, high: Tensor, cells: Tensor, scale: Tensor, pool: Pool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two cells (R, S * s, 2) around each sample along one axis, and their weights (R, S * s) each.

    Args:
        low: (R,) left or top sides of the regions in pixels.
        high: (R,) right or bottom sides.
        cells: (R,) number of cells along the axis of the level of each region.
        scale: (R,) cells per pixel.
        pool: sampling grid.
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
    """Reshape corner values (R, S * s, S * s, 2, 2) to one row (4 * s * s) for each of the R * S * S pooled cells."""
    side, ratio = pool.side, pool.sampling_ratio
    split = values.reshape(len(values), side, ratio, side, ratio, 4).transpose(2, 3)
    return split.reshape(-1, 4 * ratio * ratio)
