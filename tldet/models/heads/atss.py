"""ATSS (Zhang et al. 2020, Bridging the Gap Between Anchor-based and Anchor-free Detection).

The method in order: two small convolutional towers, shared by all levels, say class, box and centerness of one square
anchor a cell. Which anchors learn an object is decided object by object, from the overlaps of the nearest anchors
themselves (see :mod:`tldet.models.assigners.atss`), not by a fixed threshold; the rest is RetinaNet's focal loss and
FCOS's centerness.

Letters for shapes: B images, L levels, N anchors of a level, M of all levels, K classes, P anchors of the batch that
hold an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.models.assigners.atss import assign_adaptively
from tldet.models.assigners.matching import learners
from tldet.models.boxes import (
    AnchorGenerator,
    Sizes,
    center_form,
    centerness,
    decode_boxes,
    flatten_levels,
    to_distances,
)
from tldet.models.heads.base import Head
from tldet.models.losses import giou_loss
from tldet.models.normalizers import LossNormalizers, Normalizer
from tldet.models.ops.focal import focal_loss_sums
from tldet.models.postprocess import DenseOutputs, DetectionTensors, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, initialize_towers, level_scales, two_towers
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target

_POSITIVES = 100.0  # assumed per image before the first step


@dataclass(frozen=True)
class ATSSSettings(SelectSettings):
    """How anchors learn; those of :class:`~tldet.models.postprocess.SelectSettings` say how boxes come out.

    The defaults are the paper's.

    Attributes:
        octave_base_scale: side of the anchor in strides.
        topk: candidates of each object on every level.
        weights: factors of the box deltas.
        alpha: weight of objects in the focal loss.
        gamma: its damping of easy anchors.
        box_weight: factor of the box loss.
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet).
        ignore_iof_thr: share of an anchor inside a crowd region from which it is no background.
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
        require_ranges(
            self, octave_base_scale="(0, inf)", topk="[1, inf]", weights="(0, inf)", alpha="[0, 1]", gamma="[0, inf)"
        )
        require_ranges(self, box_weight="[0, inf)", ignore_iof_thr="[0, inf]")


class ATSSRaw(NamedTuple):
    """What the towers say: a tensor a level."""

    logits: tuple[Tensor, ...]  # L x (B, K, H, W)
    deltas: tuple[Tensor, ...]  # L x (B, 4, H, W) float32
    centerness: tuple[Tensor, ...]  # L x (B, 1, H, W) logits


@HEADS.register_module()
class ATSSHead(Head):
    """Class, box and centerness of one anchor a cell.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K.
        channels: width of the towers; None for that of the pyramid.
        stacked_convs: convolutions in each tower.
        norm: "group" puts a GroupNorm behind each of them.
        conv_bias: whether they have a bias (the authors' have one, mmdet's have none beside a norm).
        prior: probability of an object that the classifier starts from.
        settings: everything that is no layer.
    """

    class_layers = ("cls_score",)  # whose rows are classes

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
        self.anchors = AnchorGenerator(
            [[s.octave_base_scale * stride] for stride in strides], [1.0], strides, rounding=False
        )
        towers = two_towers(in_channels, channels, stacked_convs, (num_classes, 4), norm=norm, bias=conv_bias)
        self.cls_tower, self.box_tower, self.cls_score, self.bbox_pred = towers
        self.centerness = nn.Conv2d(channels or in_channels, 1, 3, padding=1)
        self.scales = level_scales(len(strides))
        self.normalizers = LossNormalizers(s.loss_normalizer, positives=_POSITIVES, weights=_POSITIVES / 2)
        initialize_towers(self, self.cls_score, prior)

    def forward(self, features: Sequence[Tensor]) -> ATSSRaw:
        """L x (B, C, H, W) to classes, deltas and centerness of every level."""
        logits, deltas, central = [], [], []
        for scale, level in zip(self.scales, features, strict=True):
            around = self.box_tower(level)
            logits.append(self.cls_score(self.cls_tower(level)))
            deltas.append(self.bbox_pred(around).float() * scale)
            central.append(self.centerness(around))
        return ATSSRaw(tuple(logits), tuple(deltas), tuple(central))

    def loss(
        self, raw: ATSSRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Focal and centerness loss over the anchors that learn, and GIoU loss weighted by their centerness."""
        s = self.settings
        levels = self.anchors(raw.logits)
        matched = [
            assign_adaptively(levels, target, topk=s.topk, ignore_iof_thr=s.ignore_iof_thr) for target in targets
        ]
        trainable = learners(matched, targets)
        anchors = torch.cat(levels)[trainable.place]  # (P, 4)
        wanted = centerness(to_distances(center_form(anchors)[0], trainable.boxes))
        boxes = decode_boxes(trainable.of(flatten_levels(raw.deltas, 4)), anchors, s.weights)
        central = trainable.of(flatten_levels(raw.centerness, 1)).squeeze(-1)
        logits = flatten_levels(raw.logits, self.num_classes)
        ones = trainable.per_image.clamp(min=1).sum()  # an image without objects counts as one, as in mmdet
        count = self.normalizers.divisor("positives", len(trainable.labels), len(targets), batch=ones)
        box = (giou_loss(boxes, trainable.boxes) * wanted).sum()
        return {
            "loss_cls": focal_loss_sums(logits, trainable, alpha=s.alpha, gamma=s.gamma).sum() / count,
            "loss_bbox": s.box_weight * box / self.normalizers.divisor("weights", wanted.sum(), len(targets)),
            "loss_centerness": F.binary_cross_entropy_with_logits(central, wanted, reduction="sum") / count,
        }

    @torch.no_grad()
    def decode_tensors(self, raw: ATSSRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        outputs = [DenseOutputs(*level) for level in zip(*raw, strict=True)]
        return dense_detections(self.anchors(raw.logits), outputs, self._boxes, sizes, self.settings, self.num_classes)

    def _boxes(self, deltas: Tensor, anchors: Tensor, _: int) -> Tensor:
        return decode_boxes(deltas, anchors, self.settings.weights)
