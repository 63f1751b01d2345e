"""RetinaNet (Lin et al. 2017, Focal Loss for Dense Object Detection).

Two convolutional towers, shared by all levels, predict the classes and the box deltas of every anchor. An anchor with
an IoU of at least ``pos_iou_thr`` with an object is positive, one below ``neg_iou_thr`` is background, the others are
ignored. The focal loss keeps the many easy anchors from dominating the few hard ones.

Shapes: B images, L levels, A anchors per cell, M anchors of all levels, K classes, P positive anchors of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.config import require_ranges
from tldet.models.assigners.matching import LowQuality, assign_targets, gather_positives
from tldet.models.boxes import AnchorGenerator, Sizes, decode_boxes, encode_boxes, flatten_levels
from tldet.models.heads.base import Head
from tldet.models.losses import POSITIVES, LossNormalizers, focal_loss, giou_loss
from tldet.models.postprocess import DetectionTensors, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, build_towers
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target


@dataclass(frozen=True)
class RetinaSettings(SelectSettings):
    """Settings of RetinaNet besides its layers; the defaults are torchvision's.

    Attributes:
        sizes: anchor sizes of each level, in pixels.
        ratios: height / width of the anchors.
        rounding: see :class:`~tldet.models.boxes.AnchorGenerator`; mmdet does not round.
        step: see :class:`~tldet.models.boxes.AnchorGenerator`.
        pos_iou_thr: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        neg_iou_thr: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        low_quality: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        min_pos_iou: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        alpha: weight of positives in the focal loss.
        gamma: exponent of the focal loss that reduces the loss of easy anchors.
        box_loss: "smooth_l1" on the deltas, or "giou" on the decoded boxes (torchvision's second version).
        beta: threshold of the smooth L1 loss between its quadratic and its linear part; 0 for L1.
        weights: factors of the box deltas, see :func:`~tldet.models.boxes.encode_boxes`.
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet), "image": the positives of each image,
            averaged over images (torchvision). In the last two, images without positives count as one.
        ignore_iof_thr: fraction of an anchor inside a crowd region at or above which it is ignored, not background.
    """

    sizes: Sequence[Sequence[float]] = ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812))
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    rounding: bool = True
    step: Literal["nominal", "torchvision"] = "nominal"
    pos_iou_thr: float = 0.5
    neg_iou_thr: float = 0.4
    low_quality: LowQuality = "own"
    min_pos_iou: float = 0.0
    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: Literal["smooth_l1", "giou"] = "smooth_l1"
    beta: float = 0.0
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    loss_normalizer: Literal["running", "batch", "image"] = "running"
    ignore_iof_thr: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, sizes="(0, inf)", ratios="(0, inf)", weights="(0, inf)", ignore_iof_thr="[0, inf]")
        require_ranges(self, pos_iou_thr="[0, 1]", neg_iou_thr="[0, 1]", min_pos_iou="[0, 1]")
        require_ranges(self, alpha="[0, 1]", gamma="[0, inf)", beta="[0, inf)")


class RetinaRaw(NamedTuple):
    """Raw outputs, a tensor per level."""

    logits: tuple[Tensor, ...]  # L x (B, A * K, H, W)
    deltas: tuple[Tensor, ...]  # L x (B, A * 4, H, W)


@HEADS.register_module()
class RetinaNetHead(Head):
    """One-stage head that predicts class and box of every anchor.

    Args:
        in_channels: channels of the pyramid.
        strides: strides of the pyramid, finest first.
        num_classes: number of classes K.
        channels: channels of the towers; None for those of the pyramid.
        stacked_convs: number of convolutions in each tower.
        norm: "group" adds a GroupNorm after each convolution of the towers (torchvision's second version).
        conv_bias: the convolutions have a bias.
        prior: initial probability of each class (section 3.3 of the paper).
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
        norm: TowerNorm = "none",
        conv_bias: bool = True,
        prior: float = 0.01,
        settings: RetinaSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.settings = s = settings or RetinaSettings()
        self.anchors = AnchorGenerator(s.sizes, s.ratios, strides, rounding=s.rounding, step=s.step)
        outputs = (self.anchors.per_cell * num_classes, self.anchors.per_cell * 4)
        towers = build_towers(in_channels, outputs, channels, stacked_convs, norm=norm, bias=conv_bias, prior=prior)
        self.cls_tower, self.box_tower, (self.cls_score, self.bbox_pred) = towers
        self.normalizers = LossNormalizers(
            "running" if s.loss_normalizer == "running" else "batch", positives=POSITIVES
        )

    def forward(self, features: Sequence[Tensor]) -> RetinaRaw:
        """Compute the raw outputs of L x (B, C, H, W) features."""
        logits = tuple(self.cls_score(self.cls_tower(level)) for level in features)
        return RetinaRaw(logits, tuple(self.bbox_pred(self.box_tower(level)) for level in features))

    def loss(
        self, raw: RetinaRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute focal loss and box loss, divided by the number of positive anchors; see :meth:`Head.loss`."""
        s = self.settings
        anchors = torch.cat(self.anchors(raw.logits))  # (M, 4)
        positives = gather_positives([self._assign(anchors, target) for target in targets], targets)
        logits = flatten_levels(raw.logits, self.num_classes)  # (B, M, K)
        classes = focal_loss(logits, positives, alpha=s.alpha, gamma=s.gamma)  # (B,)
        deltas = positives.select(flatten_levels(raw.deltas, 4))  # (P, 4)
        boxes = self._box_loss(deltas, anchors[positives.reference], positives.boxes)  # (P,)
        if s.loss_normalizer == "image":
            shares = 1 / positives.per_image.clamp(min=1) / len(targets)
            return {"loss_cls": (classes * shares).sum(), "loss_bbox": (boxes * shares[positives.image]).sum()}
        count = self.normalizers.divisor(
            "positives", len(positives.labels), len(targets), batch=positives.batch_divisor()
        )
        return {"loss_cls": classes.sum() / count, "loss_bbox": boxes.sum() / count}

    def _assign(self, anchors: Tensor, target: Target) -> Tensor:
        s = self.settings
        thresholds = {"pos_iou_thr": s.pos_iou_thr, "neg_iou_thr": s.neg_iou_thr, "min_pos_iou": s.min_pos_iou}
        return assign_targets(anchors, target, low_quality=s.low_quality, ignore_iof_thr=s.ignore_iof_thr, **thresholds)

    def _box_loss(self, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Compute the box loss (P,) of each positive."""
        if self.settings.box_loss == "giou":
            return giou_loss(decode_boxes(deltas, anchors, self.settings.weights), boxes)
        expected = encode_boxes(boxes, anchors, self.settings.weights)
        return F.smooth_l1_loss(deltas, expected, beta=self.settings.beta, reduction="none").sum(-1)

    @torch.no_grad()
    def decode_tensors(self, raw: RetinaRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        return dense_detections(self.anchors(raw.logits), raw, self._boxes, sizes, self.settings, self.num_classes)

    def _boxes(self, deltas: Tensor, anchors: Tensor, _: int) -> Tensor:
        return decode_boxes(deltas, anchors, self.settings.weights)
