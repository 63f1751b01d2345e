"""GFL (Li et al. 2020, Generalized Focal Loss).

The method in order: two small convolutional towers, shared by all levels, say at every anchor's center how good a box
of each class would be there, and for each of the box's four sides a distribution over its distance, whose mean is the
distance. The class score learns the overlap that the box reaches (quality focal loss), so no centerness is needed; the
distribution learns to be narrow around the true distance (distribution focal loss). Anchors are assigned as in ATSS.

Letters for shapes: B images, L levels, N anchors of a level, M of all levels, K classes, P anchors of the batch that
hold an object, n + 1 bins of a distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tldet.config import require_range, require_ranges
from tldet.models.assigners.atss import assign_adaptively
from tldet.models.assigners.matching import learners
from tldet.models.boxes import (
    AnchorGenerator,
    Sizes,
    center_form,
    flatten_levels,
    from_distances,
    to_distances,
)
from tldet.models.heads.base import Head
from tldet.models.losses import distribution_focal_loss, giou_loss, paired_iou
from tldet.models.normalizers import LossNormalizers, Normalizer
from tldet.models.ops.focal import quality_focal_loss_sums
from tldet.models.postprocess import DenseOutputs, DetectionTensors, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, initialize_towers, level_scales, two_towers
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target

_POSITIVES = 100.0  # assumed per image before the first step
_SCORE = 0.1  # assumed class score of a positive before the first step; really 0.01 (new classifier) to 0.4 (trained)
_MARGIN = 0.1  # in bins: a distance is cut so far below the last, so that there is a bin above it (the authors' value)


@dataclass(frozen=True)
class GFLSettings(SelectSettings):
    """How anchors learn; those of :class:`~tldet.models.postprocess.SelectSettings` say how boxes come out.

    The defaults are the paper's.

    Attributes:
        octave_base_scale: side of the anchor in strides.
        topk: candidates of each object on every level.
        beta: how much the quality focal loss damps what is nearly right.
        box_weight: factor of the GIoU loss.
        dfl_weight: factor of the distribution focal loss.
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet).
        ignore_iof_thr: share of an anchor inside a crowd region from which it is no background.
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
    """What the towers say: a tensor a level."""

    logits: tuple[Tensor, ...]  # L x (B, K, H, W)
    distributions: tuple[Tensor, ...]  # L x (B, 4 * (n + 1), H, W) float32 logits: left, top, right, bottom


@HEADS.register_module()
class GFLHead(Head):
    """Quality of every class and distributions of the four distances, at one anchor a cell.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K.
        channels: width of the towers; None for that of the pyramid.
        stacked_convs: convolutions in each tower.
        norm: "group" puts a GroupNorm behind each of them.
        conv_bias: whether they have a bias.
        reg_max: n, the longest distance in strides.
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
        reg_max: int = 16,
        prior: float = 0.01,
        settings: GFLSettings | None = None,
    ) -> None:
        super().__init__()
        require_range("reg_max", reg_max, "[1, inf]")
        self.num_classes, self.strides, self.reg_max = num_classes, tuple(strides), reg_max
        self.settings = s = settings or GFLSettings()
        self.anchors = AnchorGenerator(
            [[s.octave_base_scale * stride] for stride in strides], [1.0], strides, rounding=False
        )
        outputs = (num_classes, 4 * (reg_max + 1))
        towers = two_towers(in_channels, channels, stacked_convs, outputs, norm=norm, bias=conv_bias)
        self.cls_tower, self.box_tower, self.cls_score, self.bbox_pred = towers
        self.scales = level_scales(len(strides))
        self.normalizers = LossNormalizers(s.loss_normalizer, positives=_POSITIVES, weights=_POSITIVES * _SCORE)
        initialize_towers(self, self.cls_score, prior)

    def forward(self, features: Sequence[Tensor]) -> GFLRaw:
        """L x (B, C, H, W) to qualities and distributions of every level."""
        logits = tuple(self.cls_score(self.cls_tower(level)) for level in features)
        said = (self.bbox_pred(self.box_tower(level)).float() for level in features)
        return GFLRaw(logits, tuple(level * scale for scale, level in zip(self.scales, said, strict=True)))

    def loss(
        self, raw: GFLRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Quality focal, GIoU and distribution focal loss; the last two weighted by the best class score so far."""
        s = self.settings
        levels = self.anchors(raw.logits)
        matched = [
            assign_adaptively(levels, target, topk=s.topk, ignore_iof_thr=s.ignore_iof_thr) for target in targets
        ]
        trainable = learners(matched, targets)
        stride = self._stride_of(levels)[trainable.place]  # (P, 1)
        points, truth = (
            center_form(torch.cat(levels)[trainable.place])[0] / stride,
            trainable.boxes / stride,
        )  # in strides
        said = trainable.of(flatten_levels(raw.distributions, 4 * (self.reg_max + 1)))
        boxes = from_distances(points, self._mean(said))  # (P, 4)
        logits = flatten_levels(raw.logits, self.num_classes)
        trust = trainable.of(logits).detach().sigmoid().amax(-1)  # (P,)
        quality = paired_iou(boxes.detach(), truth)
        ones = trainable.per_image.clamp(min=1).sum()  # an image without objects counts as one, as in mmdet
        count = self.normalizers.divisor("positives", len(trainable.labels), len(targets), batch=ones)
        weighed = self.normalizers.divisor("weights", trust.sum(), len(targets))
        return {
            "loss_cls": quality_focal_loss_sums(logits, trainable, quality, beta=s.beta).sum() / count,
            "loss_bbox": s.box_weight * (giou_loss(boxes, truth) * trust).sum() / weighed,
            "loss_dfl": s.dfl_weight * (self._side_loss(said, to_distances(points, truth)) * trust).sum() / weighed,
        }

    def _side_loss(self, said: Tensor, distances: Tensor) -> Tensor:
        """(P,) distribution focal loss, the mean of the four sides, from (P, 4 * (n + 1)) logits and (P, 4) truth."""
        sides = distances.clamp(0, self.reg_max - _MARGIN).flatten()
        return distribution_focal_loss(said.view(len(sides), self.reg_max + 1), sides).view(-1, 4).mean(-1)

    def _mean(self, said: Tensor) -> Tensor:
        """(..., 4) mean distances in strides of (..., 4 * (n + 1)) logits."""
        bins = torch.arange(self.reg_max + 1, device=said.device)
        return (said.float().reshape(*said.shape[:-1], 4, len(bins)).softmax(-1) * bins).sum(-1)

    def _stride_of(self, levels: Sequence[Tensor]) -> Tensor:
        """(M, 1) the stride of every anchor's level."""
        strides = [level.new_full((len(level), 1), s) for level, s in zip(levels, self.strides, strict=True)]
        return torch.cat(strides)

    @torch.no_grad()
    def decode_tensors(self, raw: GFLRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        outputs = [DenseOutputs(*level) for level in zip(*raw, strict=True)]
        return dense_detections(self.anchors(raw.logits), outputs, self._boxes, sizes, self.settings, self.num_classes)

    def _boxes(self, said: Tensor, anchors: Tensor, level: int) -> Tensor:
        return from_distances(center_form(anchors)[0], self._mean(said) * self.strides[level])
