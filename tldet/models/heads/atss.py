"""ATSS (Zhang et al. 2020, Bridging the Gap Between Anchor-based and Anchor-free Detection).

Two convolutional towers, shared by all levels, predict class, box and centerness of one square anchor per cell. The IoU
threshold for positive anchors is computed for each object from the anchors nearest to it
(:mod:`tldet.models.assigners.atss`). The classification loss is that of RetinaNet, centerness that of FCOS.

Shapes: B images, L levels, M anchors of all levels, K classes, P positive anchors of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.config import require_ranges
from tldet.models.assigners.atss import adaptive_positives
from tldet.models.boxes import (
    Sizes,
    center_form,
    centerness,
    decode_boxes,
    flatten_levels,
    square_anchors,
    to_distances,
)
from tldet.models.heads.base import Head
from tldet.models.losses import POSITIVES, LossNormalizers, Normalizer, focal_loss, giou_loss
from tldet.models.postprocess import DetectionTensors, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, build_towers, level_scales
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target


@dataclass(frozen=True)
class ATSSSettings(SelectSettings):
    """Settings of ATSS besides its layers; the defaults are the paper's.

    Attributes:
        octave_base_scale: side of the anchor in strides.
        topk: number of candidates of an object per level.
        weights: factors of the box deltas, see :func:`~tldet.models.boxes.encode_boxes`.
        alpha: weight of positives in the focal loss.
        gamma: exponent of the focal loss that reduces the loss of easy anchors.
        box_weight: weight of the box loss.
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet).
        ignore_iof_thr: fraction of an anchor inside a crowd region at or above which it is ignored, not background.
    """

    nms_iou_thr: float = 0.6
    octave_base_scale: float = 8.0
    topk: int = 9
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    alpha: float = 0.25
    gamma: float = 2.0
    box_weight: float = 2.0
    loss_normalizer: Normalizer = "running"
    ignore_iof_thr: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, octave_base_scale="(0, inf)", topk="[1, inf]", weights="(0, inf)")
        require_ranges(self, alpha="[0, 1]", gamma="[0, inf)", box_weight="[0, inf)", ignore_iof_thr="[0, inf]")


class ATSSRaw(NamedTuple):
    """Raw outputs, a tensor per level."""

    logits: tuple[Tensor, ...]  # L x (B, K, H, W)
    deltas: tuple[Tensor, ...]  # L x (B, 4, H, W) float32
    centerness: tuple[Tensor, ...]  # L x (B, 1, H, W) logits


@HEADS.register_module()
class ATSSHead(Head):
    """One-stage head that predicts class, box and centerness of one anchor per cell.

    Args:
        in_channels: channels of the pyramid.
        strides: strides of the pyramid, finest first.
        num_classes: number of classes K.
        channels: channels of the towers; None for those of the pyramid.
        stacked_convs: number of convolutions in each tower.
        norm: "group" adds a GroupNorm after each convolution of the towers.
        conv_bias: the convolutions have a bias (True in the authors' code, False in mmdet if there is a norm).
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
        prior: float = 0.01,
        settings: ATSSSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.settings = s = settings or ATSSSettings()
        self.anchors = square_anchors(s.octave_base_scale, strides)
        outputs = (num_classes, 4, 1)
        towers = build_towers(in_channels, outputs, channels, stacked_convs, norm=norm, bias=conv_bias, prior=prior)
        self.cls_tower, self.box_tower, (self.cls_score, self.bbox_pred, self.centerness) = towers
        self.scales = level_scales(len(strides))
        self.normalizers = LossNormalizers(s.loss_normalizer, positives=POSITIVES, weights=POSITIVES / 2)

    def forward(self, features: Sequence[Tensor]) -> ATSSRaw:
        """Compute the raw outputs of L x (B, C, H, W) features."""
        logits, deltas, central = [], [], []
        for scale, level in zip(self.scales, features, strict=True):
            hidden = self.box_tower(level)
            logits.append(self.cls_score(self.cls_tower(level)))
            deltas.append(self.bbox_pred(hidden).float() * scale)
            central.append(self.centerness(hidden))
        return ATSSRaw(tuple(logits), tuple(deltas), tuple(central))

    def loss(
        self, raw: ATSSRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute focal and centerness loss, and GIoU loss weighted by centerness; see :meth:`Head.loss`."""
        s = self.settings
        levels = self.anchors(raw.logits)
        positives = adaptive_positives(levels, targets, topk=s.topk, ignore_iof_thr=s.ignore_iof_thr)
        anchors = torch.cat(levels)[positives.reference]  # (P, 4)
        expected = centerness(to_distances(center_form(anchors)[0], positives.boxes))  # (P,)
        boxes = decode_boxes(positives.select(flatten_levels(raw.deltas, 4)), anchors, s.weights)  # (P, 4)
        central = positives.select(flatten_levels(raw.centerness, 1)).squeeze(-1)  # (P,)
        logits = flatten_levels(raw.logits, self.num_classes)  # (B, M, K)
        count = self.normalizers.divisor(
            "positives", len(positives.labels), len(targets), batch=positives.batch_divisor()
        )
        box = (giou_loss(boxes, positives.boxes) * expected).sum()
        return {
            "loss_cls": focal_loss(logits, positives, alpha=s.alpha, gamma=s.gamma).sum() / count,
            "loss_bbox": s.box_weight * box / self.normalizers.divisor("weights", expected.sum(), len(targets)),
            "loss_centerness": F.binary_cross_entropy_with_logits(central, expected, reduction="sum") / count,
        }

    @torch.no_grad()
    def decode_tensors(self, raw: ATSSRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        return dense_detections(self.anchors(raw.logits), raw, self._boxes, sizes, self.settings, self.num_classes)

    def _boxes(self, deltas: Tensor, anchors: Tensor, _: int) -> Tensor:
        return decode_boxes(deltas, anchors, self.settings.weights)
