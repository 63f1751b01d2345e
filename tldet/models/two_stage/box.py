"""Box branch of two-stage detectors: classes and boxes of proposals (Girshick 2015; Lin et al. 2017, section 4.2).

Letters for shapes: B images, R regions of all images, r regions of one, P of them positive, K classes, C channels, S
side of the pooled grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.models.assigners.matching import Rescue
from tldet.models.boxes import Sizes, decode_boxes
from tldet.models.cosine import CosineClassifier
from tldet.models.necks.fpn import BatchNorm
from tldet.models.normalizers import LossNormalizers, Normalizer
from tldet.models.ops.roi_align import Pool
from tldet.models.pooling import PaddedBoxes, Regions, pool_regions
from tldet.models.postprocess import Candidates, DetectionTensors, select

HeadNorm = Literal["none", "batch"]
Cosine = Literal["none", "fixed", "learned"]


@dataclass(frozen=True)
class RoISettings:
    """The second stage; the defaults are torchvision's.

    Attributes:
        levels: how many levels of the pyramid, finest first, are pooled from.
        pool: side S of the pooled grid.
        sampling_ratio: samples a pooled cell in each direction; 0 adapts them to the region's size (mmdet).
        aligned: cell i of a level is centered at (i + 0.5) strides (Detectron2, mmdet) or at i strides (torchvision).
        offset: shift of these centers in strides, for backbones whose SAME padding moves them right and down.
        convs: 3x3 convolutions of the pyramid's width before the fully connected layers.
        norm: "batch" puts a BatchNorm behind each of them.
        fcs: fully connected layers.
        channels: their width.
        dropout: share of their outputs dropped in training.
        class_agnostic: one box for all classes instead of one a class.
        cosine: classify by the angle of feature and class (Wang et al. 2020), with a "fixed" or a "learned" scale.
        cosine_scale: that scale, or where it starts.
        weights: factors of the box deltas.
        pos_iou_thr: overlap from which a proposal learns an object.
        low_quality: see :func:`~tldet.models.assigners.matching.match`.
        num_samples: proposals drawn an image for the loss.
        pos_fraction: at most this share of them are objects.
        beta: corner of the smooth L1 loss; 0 for L1.
        loss_normalizer: see :class:`~tldet.models.two_stage.rpn.RPNSettings`; counts the sampled regions.
        ignore_iof_thr: share of a proposal inside a crowd region from which it is no background.
        spare: overlap with a confident detection of a class that the image was not labeled for, from which a
            proposal is no background.
        spare_score: score from which such a detection is confident.
        spare_among: such detections are looked for among so many best proposals (as many as Ren et al. 2015 test).
        score_thr: least score of a detection.
        nms_iou_thr, nms_per_class: see :class:`~tldet.models.postprocess.SelectSettings`.
        max_per_img: at most so many detections an image.
        min_bbox_size: least side of a detection in pixels.

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
    low_quality: Rescue = "none"
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
    """Regions to class logits and box deltas: pooling, convolutions if any, fully connected layers."""

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
        self.cls_score = classifier(width, num_classes + 1, s)  # background is the last row
        self.bbox_pred = nn.Linear(width, 4 if s.class_agnostic else num_classes * 4)
        self.normalizers = LossNormalizers(s.loss_normalizer, regions=s.num_samples)

    def forward(self, features: Sequence[Tensor], rois: Regions) -> tuple[Tensor, Tensor]:
        """Regions to class logits (R, K + 1) and deltas (R, K, 4), or (R, 1, 4) for all classes."""
        pooled = pool_regions(features[: self.settings.levels], rois, self.strides, self.pool)
        hidden = self.convs(pooled).flatten(1)
        for fc in self.fcs:
            hidden = F.dropout(F.relu(fc(hidden)), self.settings.dropout, self.training)
        deltas = self.bbox_pred(hidden).float()
        return self.cls_score(hidden).float(), deltas.view(deltas.shape[0], deltas.shape[1] // 4, 4)


def classifier(in_features: int, rows: int, settings: RoISettings) -> nn.Linear:
    """The layer from features (R, C) to class logits (R, rows)."""
    if settings.cosine == "none":
        return nn.Linear(in_features, rows)
    return CosineClassifier(in_features, rows, scale=settings.cosine_scale, learned=settings.cosine == "learned")


def conv_stack(in_channels: int, width: int, depth: int, norm: HeadNorm) -> nn.Sequential:
    """``depth`` times a 3x3 convolution, a BatchNorm where asked for, and ReLU."""
    layers = nn.Sequential()
    for i in range(depth):
        conv = nn.Conv2d(width if i else in_channels, width, 3, padding=1, bias=norm == "none")
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        between = [BatchNorm(width)] if norm == "batch" else []
        layers.append(nn.Sequential(conv, *between, nn.ReLU(inplace=True)))
    return layers


def of_class(values: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """(P, ...) of (R, K, ...) at rows and labels (P,); of (R, 1, ...), which serves all classes, at the rows."""
    return values[rows, labels if values.shape[1] > 1 else torch.zeros_like(labels)]


def find_in(box: BoxBranch, features: Sequence[Tensor], rois: PaddedBoxes, sizes: Sizes) -> DetectionTensors:
    """Compute the detections of a box branch in the regions of the pyramid L x (B, C, H, W)."""
    logits, deltas = box(features, rois.regions())
    return detect(rois, logits.softmax(-1), deltas, sizes, box.settings)


def detect(rois: PaddedBoxes, scores: Tensor, deltas: Tensor, sizes: Sizes, s: RoISettings) -> DetectionTensors:
    """Select the detections of each image among the (region, class) pairs.

    Args:
        rois: the regions, up to P of an image.
        scores: (R, K + 1) probabilities, background last.
        deltas: (R, K, 4), or (R, 1, 4) for all classes.
        sizes: (height, width) of each image.
        s: the settings.
    """
    score = rois.padded(scores)[..., :-1]  # (B, P, K)
    boxes = decode_boxes(rois.padded(deltas), rois.boxes[:, :, None], s.weights).expand(*score.shape, 4)
    labels = torch.arange(score.shape[2], device=score.device).expand(score.shape)
    good = (score > s.score_thr) & rois.valid[..., None]
    return select(Candidates(*(part.flatten(1, 2) for part in (boxes, score, labels, good))), sizes, s, s.min_bbox_size)
