"""GFL (Li et al. 2020, Generalized Focal Loss).

Two convolutional towers, shared by all levels, predict at the center of every anchor a score per class and a
distribution of the distance to each side of the box; the mean of the distribution is the distance. The score is trained
to predict the IoU of the box (quality focal loss), so there is no centerness; the distribution is trained to be narrow
around the true distance (distribution focal loss). Anchors are assigned as in ATSS.

Shapes: B images, L levels, M anchors of all levels, K classes, P positive anchors of the batch, n + 1 bins of a
distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tldet.config import require_range, require_ranges
from tldet.models.assigners.atss import adaptive_positives
from tldet.models.boxes import Sizes, center_form, flatten_levels, from_distances, square_anchors, to_distances
from tldet.models.heads.base import Head
from tldet.models.losses import (
    POSITIVES,
    LossNormalizers,
    Normalizer,
    distribution_focal_loss,
    giou_loss,
    paired_iou,
    quality_focal_loss,
)
from tldet.models.postprocess import DetectionTensors, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, build_towers, level_scales
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target

_SCORE = 0.1  # class score of a positive assumed before the first step; 0.01 (new classifier) to 0.4 (trained)
_MARGIN = 0.1  # in bins: distances are clipped this far below the last bin (the authors' value)


@dataclass(frozen=True)
class GFLSettings(SelectSettings):
    """Settings of GFL besides its layers; the defaults are the paper's.

    Attributes:
        octave_base_scale: side of the anchor in strides.
        topk: number of candidates of an object per level.
        beta: exponent of the quality focal loss that reduces the loss of scores close to their target.
        box_weight: weight of the GIoU loss.
        dfl_weight: weight of the distribution focal loss.
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet).
        ignore_iof_thr: fraction of an anchor inside a crowd region at or above which it is ignored, not background.
    """

    nms_iou_thr: float = 0.6
    octave_base_scale: float = 8.0
    topk: int = 9
    beta: float = 2.0
    box_weight: float = 2.0
    dfl_weight: float = 0.25
    loss_normalizer: Normalizer = "running"
    ignore_iof_thr: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, octave_base_scale="(0, inf)", topk="[1, inf]", beta="[0, inf)", ignore_iof_thr="[0, inf]")
        require_ranges(self, box_weight="[0, inf)", dfl_weight="[0, inf)")


class GFLRaw(NamedTuple):
    """Raw outputs, a tensor per level."""

    logits: tuple[Tensor, ...]  # L x (B, K, H, W)
    distributions: tuple[Tensor, ...]  # L x (B, 4 * (n + 1), H, W) float32 logits: left, top, right, bottom


@HEADS.register_module()
class GFLHead(Head):
    """One-stage head that predicts class scores and distributions of the distances at one anchor per cell.

    Args:
        in_channels: channels of the pyramid.
        strides: strides of the pyramid, finest first.
        num_classes: number of classes K.
        channels: channels of the towers; None for those of the pyramid.
        stacked_convs: number of convolutions in each tower.
        norm: "group" adds a GroupNorm after each convolution of the towers.
        conv_bias: the convolutions have a bias.
        reg_max: n, the largest distance in strides.
        prior: initial probability of each class.
        settings: all settings that are not layers.
    """

    class_layers = ("cls_score",)

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int = 80,
        *,
        channels: int | None = None,
        stacked_convs: int = 4,
        norm: TowerNorm = "group",
        conv_bias: bool = False,
        reg_max: int = 16,
        prior: float = 0.01,
        settings: GFLSettings | None = None,
    ) -> None:
        super().__init__()
        require_range("reg_max", reg_max, "[1, inf]")
        self.num_classes, self.strides, self.reg_max = num_classes, tuple(strides), reg_max
        self.settings = s = settings or GFLSettings()
        self.anchors = square_anchors(s.octave_base_scale, strides)
        outputs = (num_classes, 4 * (reg_max + 1))
        towers = build_towers(in_channels, outputs, channels, stacked_convs, norm=norm, bias=conv_bias, prior=prior)
        self.cls_tower, self.box_tower, (self.cls_score, self.bbox_pred) = towers
        self.scales = level_scales(len(strides))
        self.normalizers = LossNormalizers(s.loss_normalizer, positives=POSITIVES, weights=POSITIVES * _SCORE)

    def forward(self, features: Sequence[Tensor]) -> GFLRaw:
        """Compute the raw outputs of L x (B, C, H, W) features."""
        logits = tuple(self.cls_score(self.cls_tower(level)) for level in features)
        sides = (self.bbox_pred(self.box_tower(level)).float() for level in features)
        return GFLRaw(logits, tuple(level * scale for scale, level in zip(self.scales, sides, strict=True)))

    def loss(
        self, raw: GFLRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute quality focal, GIoU and distribution focal loss; see :meth:`Head.loss`.

        The last two are weighted by the highest class score that each positive anchor predicts.
        """
        s = self.settings
        levels = self.anchors(raw.logits)
        positives = adaptive_positives(levels, targets, topk=s.topk, ignore_iof_thr=s.ignore_iof_thr)
        stride = self._stride_of(levels)[positives.reference]  # (P, 1)
        points = center_form(torch.cat(levels)[positives.reference])[0] / stride  # (P, 2) in strides
        truth = positives.boxes / stride  # (P, 4) in strides
        sides = positives.select(flatten_levels(raw.distributions, 4 * (self.reg_max + 1)))  # (P, 4 * (n + 1))
        boxes = from_distances(points, self._mean(sides))  # (P, 4) in strides
        logits = flatten_levels(raw.logits, self.num_classes)  # (B, M, K)
        score = positives.select(logits).detach().sigmoid().amax(-1)  # (P,)
        quality = paired_iou(boxes.detach(), truth)  # (P,)
        count = self.normalizers.divisor(
            "positives", len(positives.labels), len(targets), batch=positives.batch_divisor()
        )
        total = self.normalizers.divisor("weights", score.sum(), len(targets))
        return {
            "loss_cls": quality_focal_loss(logits, positives, quality, beta=s.beta).sum() / count,
            "loss_bbox": s.box_weight * (giou_loss(boxes, truth) * score).sum() / total,
            "loss_dfl": s.dfl_weight * (self._side_loss(sides, to_distances(points, truth)) * score).sum() / total,
        }

    def _side_loss(self, sides: Tensor, distances: Tensor) -> Tensor:
        """Compute the distribution focal loss (P,), the mean of the four sides.

        Args:
            sides: (P, 4 * (n + 1)) logits.
            distances: (P, 4) true distances in strides.
        """
        expected = distances.clamp(0, self.reg_max - _MARGIN).flatten()
        return distribution_focal_loss(sides.view(len(expected), self.reg_max + 1), expected).view(-1, 4).mean(-1)

    def _mean(self, sides: Tensor) -> Tensor:
        """Return the mean distances (..., 4) in strides of logits (..., 4 * (n + 1))."""
        bins = torch.arange(self.reg_max + 1, device=sides.device)
        return (sides.float().reshape(*sides.shape[:-1], 4, len(bins)).softmax(-1) * bins).sum(-1)

    def _stride_of(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the stride (M, 1) of each anchor's level."""
        strides = [level.new_full((len(level), 1), s) for level, s in zip(levels, self.strides, strict=True)]
        return torch.cat(strides)

    @torch.no_grad()
    def decode_tensors(self, raw: GFLRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        return dense_detections(self.anchors(raw.logits), raw, self._boxes, sizes, self.settings, self.num_classes)

    def _boxes(self, sides: Tensor, anchors: Tensor, level: int) -> Tensor:
        return from_distances(center_form(anchors)[0], self._mean(sides) * self.strides[level])
