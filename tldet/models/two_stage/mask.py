"""Mask branch of two-stage detectors (He et al. 2017).

Shapes: B images, L levels, R regions of all images, P positive regions of an image, N objects of an image, K classes,
C channels, S side of the pooled grid, M = 2 S side of a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tldet.models.losses import LossNormalizers
from tldet.models.ops.roi_align import Pool
from tldet.models.pooling import PaddedBoxes, Regions, pool_regions, regions_of
from tldet.models.postprocess import DetectionTensors
from tldet.models.two_stage.box import HeadNorm, RoISettings, conv_stack, select_classes
from tldet.models.two_stage.loss import SampledRegions
from tldet.runtime.masks import Paste
from tldet.structures.target import Target
from tldet.system.device import true_rows

_CHUNK = 20_000_000  # pixels of target masks per block: 80 MB


@dataclass(frozen=True)
class MaskSettings:
    """Settings of the mask branch; levels, sampling and alignment of the pooled features are those of the box branch.

    Attributes:
        pool: side S of the pooled grid; the side of a mask is 2 * S.
        convs: number of 3x3 convolutions before the upsampling.
        channels: channels of the 3x3 convolutions.
        norm: "batch" adds a BatchNorm after each convolution.
        class_agnostic: predict one mask for all classes instead of one per class.
        targets: target value of a mask cell. "coverage": fraction of the cell that the object covers; "mmdet": 1 if the
            fraction is at least 0.5, else 0; "torchvision": the fraction, sampled half a pixel further right and down.
        threshold: see :class:`~tldet.structures.masks.InstanceMasks`.
        paste: see :class:`~tldet.structures.masks.InstanceMasks`.
    """

    pool: int = 14
    convs: int = 4
    channels: int = 256
    norm: HeadNorm = "none"
    class_agnostic: bool = False
    targets: Literal["coverage", "mmdet", "torchvision"] = "coverage"
    threshold: float = 0.5
    paste: Paste = "sampled"


class MaskBranch(nn.Module):
    """Network that predicts masks of regions: pooling, convolutions, upsampling (He et al. 2017, figure 4 right)."""

    def __init__(
        self, in_channels: int, strides: Sequence[int], num_classes: int, roi: RoISettings, settings: MaskSettings
    ) -> None:
        super().__init__()
        s = self.settings = settings
        self.strides = tuple(strides[: roi.levels])
        self.pool = Pool(s.pool, roi.sampling_ratio, roi.aligned, roi.offset)
        self.convs = conv_stack(in_channels, s.channels, s.convs, s.norm)
        width = s.channels if s.convs else in_channels
        self.upsample = nn.ConvTranspose2d(width, s.channels, 2, stride=2)
        self.mask_logits = nn.Conv2d(s.channels, 1 if s.class_agnostic else num_classes, 1)
        self.normalizers = LossNormalizers(roi.loss_normalizer, positives=max(1.0, roi.num_samples * roi.pos_fraction))
        for layer in (self.upsample, self.mask_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor], rois: Regions) -> Tensor:
        """Compute mask logits (R, K, M, M), or (R, 1, M, M) if ``class_agnostic``."""
        pooled = pool_regions(features[: len(self.strides)], rois, self.strides, self.pool)
        logits: Tensor = self.mask_logits(F.relu(self.upsample(self.convs(pooled))))
        return logits.float()


def mask_loss(
    branch: MaskBranch, features: Sequence[Tensor], regions: Sequence[SampledRegions], targets: Sequence[Target]
) -> Tensor:
    """Compute the binary cross entropy of the true class's masks, averaged over cells and positives (section 3).

    Objects whose mask is empty, because they have none in the annotations, are left out.

    Args:
        branch: the branch.
        features: L x (B, C, H, W).
        regions: sampled regions of each image.
        targets: ground truth of each image.

    Raises:
        ValueError: a target has no masks.
    """
    masks = [target.masks for target in targets if target.masks is not None]
    if len(masks) < len(targets):
        raise ValueError("a mask branch needs masks in its targets: set data.train.masks and data.val.masks")
    rois, expected, labels = [], [], []
    annotated = true_rows([has_pixels(mask)[one.objects] for one, mask in zip(regions, masks, strict=True)])
    for one, target, mask, rows in zip(regions, targets, masks, annotated, strict=True):
        objects = one.objects[rows]
        rois.append(one.rois[rows])
        labels.append(target.labels[objects])
        expected.append(mask_targets(mask, objects, rois[-1], branch))
    logits, label, truth = branch(features, regions_of(rois)), torch.cat(labels), torch.cat(expected)
    chosen = select_classes(logits, torch.arange(len(label), device=label.device), label)
    cells = truth.shape[1] * truth.shape[2] * branch.normalizers.divisor("positives", len(truth), len(targets))
    return F.binary_cross_entropy_with_logits(chosen, truth, reduction="sum") / cells


def has_pixels(masks: Tensor) -> Tensor:
    """Return (N,) bool: True for masks (N, H, W) that are not empty."""
    return masks.flatten(1).amax(1) > 0


@torch.no_grad()
def mask_targets(masks: Tensor, objects: Tensor, rois: Tensor, branch: MaskBranch) -> Tensor:
    """Crop the mask of each region's object to the region and resize it: (P, M, M) float in 0..1.

    Masks are converted to float in blocks, so that memory does not grow with the number of objects.

    Args:
        masks: (N, H, W) uint8 of 0 and 1.
        objects: (P,) rows of ``masks``.
        rois: (P, 4) xyxy pixels.
        branch: the branch, with grid size and kind of targets.
    """
    side, form = 2 * branch.pool.side, branch.settings.targets
    size = max(1, _CHUNK // max(masks[0].numel() if len(masks) else 1, 1))
    parts = [rois.new_zeros(0, side, side)]
    for rows, boxes in zip(torch.split(objects, size), torch.split(rois, size), strict=True):
        if len(rows):
            number = torch.arange(len(rows), device=rois.device, dtype=rois.dtype)[:, None]
            regions = torch.cat([number, boxes], 1)
            cropped = masks[rows][:, None].float()
            parts.append(torchvision.ops.roi_align(cropped, regions, side, 1.0, 0, form != "torchvision")[:, 0])
    target = torch.cat(parts)
    return (target >= 0.5).float() if form == "mmdet" else target


def with_masks(branches: Sequence[MaskBranch], features: Sequence[Tensor], found: DetectionTensors) -> DetectionTensors:
    """Add the mask of its class to each detection, averaged over the branches' probabilities."""
    boxes = PaddedBoxes(found.boxes, found.counts)
    regions, labels = boxes.regions(), boxes.packed(found.labels)
    rows = torch.arange(labels.shape[0], device=labels.device)
    predicted = [select_classes(branch(features, regions), rows, labels).sigmoid() for branch in branches]
    return found._replace(masks=boxes.padded(torch.stack(predicted).mean(0)))
