"""Box branch of two-stage detectors (Girshick 2015, Fast R-CNN; Lin et al. 2017, section 4.2).

Shapes: B images, L levels, R regions of all images, P regions of an image with padding, K classes, C channels, S side
of the pooled grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.models.assigners.matching import LowQuality
from tldet.models.boxes import Sizes, decode_boxes
from tldet.models.cosine import CosineClassifier
from tldet.models.losses import LossNormalizers, Normalizer
from tldet.models.necks.fpn import BatchNorm
from tldet.models.ops.roi_align import Pool
from tldet.models.pooling import PaddedBoxes, Regions, pool_regions
from tldet.models.postprocess import Candidates, DetectionTensors, select

HeadNorm = Literal["none", "batch"]
Cosine = Literal["none", "fixed", "trainable"]


@dataclass(frozen=True)
class RoISettings:
    """Settings of the second stage; the defaults are torchvision's.

    Attributes:
        levels: number of levels of the pyramid, finest first, that regions are pooled from.
        pool: side S of the pooled grid.
        sampling_ratio: samples per pooled cell and axis; 0 adapts them to the size of the region (mmdet).
        aligned: cell i of a level is centered at (i + 0.5) strides (Detectron2, mmdet) or at i strides (torchvision).
        offset: shift of the cell centers in strides, for backbones with SAME padding, which moves them right and down.
        convs: number of 3x3 convolutions before the fully connected layers, with the channels of the pyramid.
        norm: "batch" adds a BatchNorm after each 3x3 convolution.
        fcs: number of fully connected layers.
        channels: width of the fully connected layers.
        dropout: dropout probability of the outputs of the fully connected layers.
        class_agnostic: predict one box for all classes instead of one per class.
        cosine: classify by the cosine of feature and class weight (Wang et al. 2020) with a "fixed" or a trainable
            ("trainable") scale.
        cosine_scale: scale of the cosine classifier; the initial value if ``cosine`` is "trainable".
        weights: factors of the box deltas, see :func:`~tldet.models.boxes.encode_boxes`.
        pos_iou_thr: IoU at or above which a proposal is assigned to its best box; all others are background.
        low_quality: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        num_samples: number of proposals sampled per image for the loss.
        pos_fraction: largest fraction of positives among the sampled proposals.
        beta: threshold of the smooth L1 loss between its quadratic and its linear part; 0 for L1.
        loss_normalizer: see :class:`~tldet.models.two_stage.rpn.RPNSettings`; counts the sampled regions.
        ignore_iof_thr: fraction of a proposal inside a crowd region at or above which it is ignored, not background.
        spare: IoU with a confident detection of a class that is not annotated on the image at or above which a proposal
            is ignored, not background.
        spare_score: lowest score of a confident detection in the rule of ``spare``.
        spare_among: number of best proposals that are searched for confident detections (300, as in testing of Ren et
            al. 2015).
        score_thr: a (region, class) pair is a candidate if its score is above this threshold.
        nms_iou_thr, nms_per_class: see :class:`~tldet.models.postprocess.SelectSettings`.
        max_per_img: largest number of detections of an image.
        min_bbox_size: smallest side of a detection in pixels.

    Raises:
        ConfigError: a value is out of range.
    """

    levels: int = 4
    pool: int = 7
    sampling_ratio: int = 2
    aligned: bool = False
    offset: float = 0.0
    convs: int = 0
    norm: HeadNorm = "none"
    fcs: int = 2
    channels: int = 1024
    dropout: float = 0.0
    class_agnostic: bool = False
    cosine: Cosine = "none"
    cosine_scale: float = 20.0
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    pos_iou_thr: float = 0.5
    low_quality: LowQuality = "none"
    num_samples: int = 512
    pos_fraction: float = 0.25
    beta: float = 1 / 9
    loss_normalizer: Normalizer = "running"
    ignore_iof_thr: float = 0.5
    spare: float = 0.5
    spare_score: float = 0.5
    spare_among: int = 300
    score_thr: float = 0.05
    nms_iou_thr: float = 0.5
    nms_per_class: bool = True
    max_per_img: int = 100
    min_bbox_size: float = 1e-2

    def __post_init__(self) -> None:
        require_ranges(self, levels="[1, inf]", pool="[1, inf]", sampling_ratio="[0, inf]", convs="[0, inf]")
        require_ranges(self, fcs="[0, inf]", channels="[1, inf]", dropout="[0, 1]", cosine_scale="(0, inf)")
        require_ranges(self, weights="(0, inf)", pos_iou_thr="[0, 1]", num_samples="[1, inf]", pos_fraction="[0, 1]")
        require_ranges(self, beta="[0, inf)", ignore_iof_thr="[0, inf]", spare="[0, inf]", spare_score="[0, inf]")
        require_ranges(self, spare_among="[0, inf]", score_thr="[0, 1]", nms_iou_thr="[0, 1]", max_per_img="[1, inf]")
        require_ranges(self, min_bbox_size="[0, inf)", offset="[0, 1]")


class BoxBranch(nn.Module):
    """Network that predicts classes and boxes of regions: pooling, convolutions, fully connected layers."""

    def __init__(self, in_channels: int, strides: Sequence[int], num_classes: int, settings: RoISettings) -> None:
        super().__init__()
        s = self.settings = settings
        self.num_classes = num_classes
        self.strides = tuple(strides[: s.levels])
        self.pool = Pool(s.pool, s.sampling_ratio, s.aligned, s.offset)
        self.convs = conv_stack(in_channels, in_channels, s.convs, s.norm)
        flat = in_channels * s.pool**2
        self.fcs = nn.ModuleList(nn.Linear(s.channels if i else flat, s.channels) for i in range(s.fcs))
        width = s.channels if s.fcs else flat
        self.cls_score = classifier(width, num_classes + 1, s)  # background is last
        self.bbox_pred = nn.Linear(width, 4 if s.class_agnostic else num_classes * 4)
        self.normalizers = LossNormalizers(s.loss_normalizer, regions=s.num_samples)

    def forward(self, features: Sequence[Tensor], rois: Regions) -> tuple[Tensor, Tensor]:
        """Compute class logits (R, K + 1) and deltas (R, K, 4), or (R, 1, 4) if ``class_agnostic``."""
        pooled = pool_regions(features[: self.settings.levels], rois, self.strides, self.pool)
        hidden = self.convs(pooled).flatten(1)
        for fc in self.fcs:
            hidden = F.dropout(F.relu(fc(hidden)), self.settings.dropout, self.training)
        deltas = self.bbox_pred(hidden).float()
        return self.cls_score(hidden).float(), deltas.view(deltas.shape[0], deltas.shape[1] // 4, 4)


def classifier(in_features: int, rows: int, settings: RoISettings) -> nn.Linear:
    """Create the layer that maps features (R, C) to class logits (R, rows)."""
    if settings.cosine == "none":
        return nn.Linear(in_features, rows)
    return CosineClassifier(in_features, rows, scale=settings.cosine_scale, trainable=settings.cosine == "trainable")


def conv_stack(in_channels: int, width: int, depth: int, norm: HeadNorm) -> nn.Sequential:
    """Build ``depth`` blocks of 3x3 convolution, optional BatchNorm, and ReLU."""
    layers = nn.Sequential()
    for i in range(depth):
        conv = nn.Conv2d(width if i else in_channels, width, 3, padding=1, bias=norm == "none")
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        norms = [BatchNorm(width)] if norm == "batch" else []
        layers.append(nn.Sequential(conv, *norms, nn.ReLU(inplace=True)))
    return layers


def select_classes(values: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """Return the values (P, ...) at rows and labels (P,) of (R, K, ...), or of class-agnostic (R, 1, ...)."""
    return values[rows, labels if values.shape[1] > 1 else torch.zeros_like(labels)]


def detect_in_regions(box: BoxBranch, features: Sequence[Tensor], rois: PaddedBoxes, sizes: Sizes) -> DetectionTensors:
    """Compute the detections of a box branch in regions of the features L x (B, C, H, W)."""
    logits, deltas = box(features, rois.regions())
    return select_in_regions(rois, logits.softmax(-1), deltas, sizes, box.settings)


def select_in_regions(
    rois: PaddedBoxes, scores: Tensor, deltas: Tensor, sizes: Sizes, s: RoISettings
) -> DetectionTensors:
    """Select the detections of each image among the (region, class) pairs.

    Args:
        rois: regions, up to P of an image.
        scores: (R, K + 1) probabilities, background last.
        deltas: (R, K, 4), or (R, 1, 4) if class-agnostic.
        sizes: (height, width) of each image.
        s: settings of the second stage.
    """
    score = rois.padded(scores)[..., :-1]  # (B, P, K)
    boxes = decode_boxes(rois.padded(deltas), rois.boxes[:, :, None], s.weights).expand(*score.shape, 4)
    labels = torch.arange(score.shape[2], device=score.device).expand(score.shape)
    good = (score > s.score_thr) & rois.valid[..., None]
    pairs = Candidates(*(part.flatten(1, 2) for part in (boxes, score, labels, good)))
    return select(pairs, sizes, s, s.min_bbox_size)
