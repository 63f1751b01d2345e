"""RetinaNet (Lin et al. 2017, Focal Loss for Dense Object Detection).

The method in order: two small convolutional towers, shared by all levels, say the class and the box of every anchor.
Anchors that overlap an object by ``pos_iou_thr`` learn it, those below ``neg_iou_thr`` are background, the rest do not
count; the focal loss keeps the many easy ones from drowning the few that matter.

Letters for shapes: B images, L levels, A anchors a cell, N anchors of a level, M of all levels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.config import require_ranges
from tldet.models.assigners.matching import Rescue, assign, learners
from tldet.models.boxes import AnchorGenerator, Sizes, decode_boxes, encode_boxes, flatten_levels
from tldet.models.heads.base import Head
from tldet.models.losses import giou_loss
from tldet.models.normalizers import LossNormalizers, Normalizer
from tldet.models.ops.focal import focal_loss_sums
from tldet.models.postprocess import DenseOutputs, DetectionTensors, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, initialize_towers, two_towers
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target

_POSITIVES = 100.0  # assumed per image before the first step


@dataclass(frozen=True)
class RetinaSettings(SelectSettings):
    """How anchors learn; those of :class:`~tldet.models.postprocess.SelectSettings` say how boxes come out.

    The defaults are torchvision's.

    Attributes:
        sizes: anchor sizes of every level, in pixels.
        ratios: anchor height / width.
        rounding: see :class:`~tldet.models.boxes.AnchorGenerator`; mmdet does not round.
        step: see :class:`~tldet.models.boxes.AnchorGenerator`.
        pos_iou_thr: overlap from which an anchor learns an object.
        neg_iou_thr: overlap below which it is background.
        low_quality: see :func:`~tldet.models.assigners.matching.match`.
        min_pos_iou: see :func:`~tldet.models.assigners.matching.match`.
        alpha: weight of objects in the focal loss.
        gamma: its damping of easy anchors.
        box_loss: "smooth_l1" on the deltas, or "giou" on the boxes they make (torchvision's second version).
        beta: corner of the smooth L1 loss; 0 for L1.
        weights: factors of the box deltas, as in :func:`~tldet.models.boxes.encode_boxes`.
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet), "image": the positives of each image,
            averaged over images (torchvision). In the last two, images without positives count as one.
        ignore_iof_thr: share of an anchor inside a crowd region from which it is no background.
    """

    sizes: Sequence[Sequence[float]] = ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812))
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    rounding: bool = True
    step: Literal["nominal", "torchvision"] = "nominal"
    pos_iou_thr: float = 0.5
    neg_iou_thr: float = 0.4
    low_quality: Rescue = "own"
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
        require_ranges(
            self, sizes="(0, inf)", ratios="(0, inf)", pos_iou_thr="[0, 1]", neg_iou_thr="[0, 1]", min_pos_iou="[0, 1]"
        )
        require_ranges(
            self, alpha="[0, 1]", gamma="[0, inf)", beta="[0, inf)", weights="(0, inf)", ignore_iof_thr="[0, inf]"
        )


class RetinaRaw(NamedTuple):
    """What the towers say: a tensor a level."""

    logits: tuple[Tensor, ...]  # L x (B, A * K, H, W)
    deltas: tuple[Tensor, ...]  # L x (B, A * 4, H, W)


@HEADS.register_module()
class RetinaNetHead(Head):
    """Class and box of every anchor in one stage.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K.
        channels: width of the towers; None for that of the pyramid.
        stacked_convs: convolutions in each tower.
        norm: "group" puts a GroupNorm behind each of them (torchvision's second version).
        conv_bias: whether they have a bias.
        prior: probability of an object that the classifier starts from (section 3.3 of the paper).
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
        norm: TowerNorm = "none",
        conv_bias: bool = True,
        prior: float = 0.01,
        settings: RetinaSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.settings = settings or RetinaSettings()
        s = self.settings
        self.anchors = AnchorGenerator(s.sizes, s.ratios, strides, rounding=s.rounding, step=s.step)
        outputs = (self.anchors.per_cell * num_classes, self.anchors.per_cell * 4)
        towers = two_towers(in_channels, channels, stacked_convs, outputs, norm=norm, bias=conv_bias)
        self.cls_tower, self.box_tower, self.cls_score, self.bbox_pred = towers
        kind: Normalizer = "running" if s.loss_normalizer == "running" else "batch"
        self.normalizers = LossNormalizers(kind, positives=_POSITIVES)
        initialize_towers(self, self.cls_score, prior)

    def forward(self, features: Sequence[Tensor]) -> RetinaRaw:
        """L x (B, C, H, W) to the raw classes and deltas of every level."""
        logits = tuple(self.cls_score(self.cls_tower(level)) for level in features)
        return RetinaRaw(logits, tuple(self.bbox_pred(self.box_tower(level)) for level in features))

    def loss(
        self, raw: RetinaRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Focal loss and box loss, divided by the number of positive anchors."""
        s = self.settings
        anchors = torch.cat(self.anchors(raw.logits))  # (M, 4)
        limits = {
            "pos_iou_thr": s.pos_iou_thr,
            "neg_iou_thr": s.neg_iou_thr,
            "min_pos_iou": s.min_pos_iou,
            "ignore_iof_thr": s.ignore_iof_thr,
        }
        matched = [assign(anchors, target, low_quality=s.low_quality, **limits) for target in targets]
        trainable = learners(matched, targets)
        logits = flatten_levels(raw.logits, self.num_classes)
        classes = focal_loss_sums(logits, trainable, alpha=s.alpha, gamma=s.gamma)  # (B,)
        boxes = self._box_loss(
            trainable.of(flatten_levels(raw.deltas, 4)), anchors[trainable.place], trainable.boxes
        )  # (P,)
        counts = trainable.per_image.clamp(min=1)
        if s.loss_normalizer == "image":
            shares = 1 / counts / len(targets)
            return {"loss_cls": (classes * shares).sum(), "loss_bbox": (boxes * shares[trainable.image]).sum()}
        count = self.normalizers.divisor("positives", len(trainable.labels), len(targets), batch=counts.sum())
        return {"loss_cls": classes.sum() / count, "loss_bbox": boxes.sum() / count}

    def _box_loss(self, deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        """(P,) loss of each object."""
        if self.settings.box_loss == "giou":
            return giou_loss(decode_boxes(deltas, anchors, self.settings.weights), boxes)
        wanted = encode_boxes(boxes, anchors, self.settings.weights)
        return F.smooth_l1_loss(deltas, wanted, beta=self.settings.beta, reduction="none").sum(-1)

    @torch.no_grad()
    def decode_tensors(self, raw: RetinaRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        outputs = [DenseOutputs(*level) for level in zip(*raw, strict=True)]
        return dense_detections(self.anchors(raw.logits), outputs, self._boxes, sizes, self.settings, self.num_classes)

    def _boxes(self, deltas: Tensor, anchors: Tensor, _: int) -> Tensor:
        return decode_boxes(deltas, anchors, self.settings.weights)
