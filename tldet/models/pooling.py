"""RoIAlign on a feature pyramid: each region is pooled from the level that fits its size.

Shapes: B images, L levels, r regions of an image, R regions of all images, P regions of an image with padding,
C channels, S side of the pooled grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tldet.models.boxes import area
from tldet.models.ops.graph import GraphOperator
from tldet.models.ops.roi_align import Pool, roi_align_by_gather, roi_align_by_level
from tldet.system.device import constant, exporting, send

CANONICAL_SIZE, CANONICAL_STRIDE = 224, 16  # a 224 pixel box belongs to the level of stride 16


class Regions(NamedTuple):
    """Regions of all images, one after the other."""

    boxes: Tensor  # (R, 4) xyxy pixels
    image: Tensor  # (R,) int64 index of the image


class PaddedBoxes(NamedTuple):
    """Boxes of each image, padded with zeros to a common number.

    An exported graph computes all P boxes of an image, padding included, because its shapes are fixed. In all other
    cases, padding is skipped; only :meth:`packed` and :meth:`padded` make this distinction.
    """

    boxes: Tensor  # (B, P, 4) xyxy pixels
    counts: Tensor  # (B,) int64 number of boxes of each image, on the CPU unless a graph is exported

    @classmethod
    def of(cls, boxes: Sequence[Tensor]) -> PaddedBoxes:
        """Pad B x (r, 4) boxes."""
        counts = [len(one) for one in boxes]
        padded = boxes[0].new_zeros(len(boxes), max(1, *counts), 4)
        for row, one in zip(padded, boxes, strict=True):
            row[: len(one)] = one
        return cls(padded, torch.tensor(counts))

    def split(self) -> list[Tensor]:
        """Return B x (r, 4) boxes."""
        return [one[:count] for one, count in zip(self.boxes, self.counts.tolist(), strict=True)]

    @property
    def valid(self) -> Tensor:
        """Mask (B, P) bool, False for padding."""
        return (
            torch.arange(self.boxes.shape[1], device=self.boxes.device) < send(self.counts, self.boxes.device)[:, None]
        )

    def regions(self) -> Regions:
        """Return the boxes as regions."""
        image = torch.arange(self.boxes.shape[0], device=self.boxes.device)[:, None].expand(self.boxes.shape[:2])
        return Regions(self.packed(self.boxes), self.packed(image))

    def packed(self, values: Tensor) -> Tensor:
        """Return the values (R, ...) of the regions from those with padding (B, P, ...)."""
        flat = values.flatten(0, 1)
        return flat if exporting() else flat[self._rows()]

    def padded(self, values: Tensor) -> Tensor:
        """Return the values (B, P, ...) of the regions (R, ...), padded with zeros; inverse of :meth:`packed`."""
        shape = (*self.boxes.shape[:2], *values.shape[1:])
        if exporting() or len(values) == shape[0] * shape[1]:
            return values.view(shape)
        flat = values.new_zeros(shape[0] * shape[1], *values.shape[1:])
        return flat.index_copy(0, self._rows(), values).view(shape)

    def _rows(self) -> Tensor:
        width = self.boxes.shape[1]
        spans = [torch.arange(row * width, row * width + n) for row, n in enumerate(self.counts.tolist())]
        return send(torch.cat(spans), self.boxes.device)


def regions_of(boxes: Sequence[Tensor]) -> Regions:
    """Join B x (r, 4) boxes."""
    image = [torch.full_like(one[:, 0], number, dtype=torch.long) for number, one in enumerate(boxes)]
    return Regions(torch.cat(list(boxes)), torch.cat(image))


def as_floats(features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Convert features to float32, once for all stages that pool from them."""
    return tuple(feature.float() for feature in features)


def pool_regions(features: Sequence[Tensor], rois: Regions, strides: Sequence[int], pool: Pool) -> Tensor:
    """Apply RoIAlign (He et al. 2017) on the level that fits each region (Lin et al. 2017, equation 1).

    Args:
        features: L x (B, C, H, W); those of :func:`as_floats` are not converted again.
        rois: regions.
        strides: stride of each level.
        pool: sampling grid.

    Returns:
        (R, C, S, S) float32, differentiable in ``features``.
    """
    boxes, image = rois
    side = area(boxes).sqrt()
    finest = math.log2(strides[0] / CANONICAL_STRIDE)
    level = torch.floor(torch.log2(side / CANONICAL_SIZE) + 1e-6 - finest).clamp(0, len(strides) - 1).long()
    if pool.offset:
        boxes = boxes - pool.offset * constant(strides, boxes)[level, None]
    floats = as_floats(features)
    if exporting():
        grid = (pool.side, pool.sampling_ratio, pool.aligned)
        pooled: Tensor = ROI_ALIGN_PYRAMID(list(floats), level, image, boxes, list(strides), *grid)
        return pooled
    return pooled_by_level(floats, level, image, boxes, strides, pool)


def pooled_by_level(
    features: Sequence[Tensor], level: Tensor, image: Tensor, boxes: Tensor, strides: Sequence[int], pool: Pool
) -> Tensor:
    """Apply RoIAlign on given levels, with torchvision's kernel on a GPU and a faster one on a CPU.

    Arguments and result are those of :func:`~tldet.models.ops.roi_align.roi_align_by_gather`.
    """
    if boxes.device.type != "cpu" or pool.sampling_ratio < 1:
        return roi_align_by_level(features, level, image, boxes, strides, pool)
    return roi_align_by_gather(features, level, image, boxes, strides, pool)


def _pooled(
    features: Sequence[Tensor],
    level: Tensor,
    image: Tensor,
    boxes: Tensor,
    strides: Sequence[int],
    side: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return pooled_by_level(features, level, image, boxes, strides, Pool(side, sampling_ratio, aligned)).contiguous()


def _outline(features: Sequence[Tensor], *given: Any) -> Tensor:
    _, _, boxes, _, side, *_ = given
    return features[0].new_empty((boxes.shape[0], features[0].shape[1], side, side))


ROI_ALIGN_PYRAMID = GraphOperator(
    "roi_align_pyramid",
    "(Tensor[] features, Tensor level, Tensor image, Tensor boxes, int[] strides, SymInt side, SymInt sampling_ratio, "
    "bool aligned) -> Tensor",
    _pooled,
    _outline,
)
