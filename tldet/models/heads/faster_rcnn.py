"""Faster R-CNN on a feature pyramid (Ren et al. 2015; Lin et al. 2017, section 4.2).

The method in order: the RPN proposes places; each proposal is pooled from the level that fits its size; two fully
connected layers say its class and correct its box. Proposals that overlap an object by ``positive`` learn its class
and box, the others learn background; a fixed number is drawn from each picture.

Letters for shapes: B pictures, R regions of all pictures, K classes, C channels, S pooled side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.models.boxes import clip, decode, encode, wide_enough
from tldet.models.heads.rpn import RPN, RPNRaw, RPNSettings
from tldet.models.matching import assign, draw, generator_for
from tldet.models.pooling import Pool, pool_regions
from tldet.models.postprocess import suppress
from tldet.registry import HEADS
from tldet.structures import Detections, Size, Target

STAGE = 2


@dataclass(frozen=True)
class RoISettings:
    """The second stage; the defaults are torchvision's.

    Attributes:
        levels: how many levels of the pyramid, finest first, are pooled from.
        pool: side S of the pooled grid.
        sampling_ratio: samples a pooled cell in each direction.
        aligned: shift by half a pixel (Detectron2, mmdet) or not (torchvision).
        channels: width of the two fully connected layers.
        dropout: share of their outputs dropped in training.
        weights: factors of the box deltas.
        positive: overlap from which a proposal learns an object.
        batch: proposals drawn a picture for the loss.
        positive_fraction: at most this share of them are objects.
        beta: corner of the smooth L1 loss; 0 for L1.
        crowd: share of a proposal inside a crowd region from which it is no background.
        score: least score of a detection.
        nms_iou: overlap above which the lesser of two detections of a class is dropped.
        keep: at most so many detections a picture.
        min_size: least side of a detection in pixels.
    """

    levels: int = 4
    pool: int = 7
    sampling_ratio: int = 2
    aligned: bool = False
    channels: int = 1024
    dropout: float = 0.0
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    positive: float = 0.5
    batch: int = 512
    positive_fraction: float = 0.25
    beta: float = 1 / 9
    crowd: float = 0.5
    score: float = 0.05
    nms_iou: float = 0.5
    keep: int = 100
    min_size: float = 1e-2


class FasterRCNNRaw(NamedTuple):
    """The first stage's outputs and the features that the second stage pools from."""

    rpn: RPNRaw
    features: tuple[Tensor, ...]  # one (B, C, H, W) a level


class Drawn(NamedTuple):
    """The proposals of one picture that the loss sees."""

    rois: Tensor  # (R, 4)
    labels: Tensor  # (R,) 0..K-1, K for background
    deltas: Tensor  # (P, 4) of the first P rows, which are the positives


@HEADS.register_module()
class FasterRCNNHead(nn.Module):
    """Proposals, pooled and classified.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K, background not counted.
        rpn: the first stage.
        roi: the second stage.
    """

    class_layers = ("cls_score", "bbox_pred")  # whose rows are classes

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int = 80,
        *,
        rpn: RPNSettings | None = None,
        roi: RoISettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.roi = roi or RoISettings()
        self.strides = tuple(strides[: self.roi.levels])
        self.pool = Pool(self.roi.pool, self.roi.sampling_ratio, self.roi.aligned)
        self.rpn = RPN(in_channels, strides, rpn or RPNSettings())
        width = self.roi.channels
        self.fc1 = nn.Linear(in_channels * self.roi.pool**2, width)
        self.fc2 = nn.Linear(width, width)
        self.cls_score = nn.Linear(width, num_classes + 1)  # background is the last row
        self.bbox_pred = nn.Linear(width, num_classes * 4)

    def forward(self, features: Sequence[Tensor]) -> FasterRCNNRaw:
        """L x (B, C, H, W) to the proposals' raw outputs, and the features themselves."""
        return FasterRCNNRaw(self.rpn(features), tuple(features))

    def roi_forward(self, features: Sequence[Tensor], rois: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """B x (r, 4) regions to class logits (R, K + 1) and deltas (R, K, 4), picture by picture."""
        pooled = pool_regions(features[: self.roi.levels], rois, self.strides, self.pool)
        hidden = F.relu(self.fc1(pooled.flatten(1)))
        hidden = F.dropout(hidden, self.roi.dropout, self.training)
        hidden = F.relu(self.fc2(hidden))
        hidden = F.dropout(hidden, self.roi.dropout, self.training)
        return self.cls_score(hidden).float(), self.bbox_pred(hidden).float().view(-1, self.num_classes, 4)

    def loss(
        self, raw: FasterRCNNRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None
    ) -> dict[str, Tensor]:
        """The four losses, each divided by the number of anchors or regions drawn."""
        losses = self.rpn.loss(raw.rpn, targets, seed)
        proposals = self.rpn.propose(raw.rpn, sizes, training=True)
        drawn = [self._draw(p, target, seed) for p, target in zip(proposals, targets, strict=True)]
        logits, deltas = self.roi_forward(raw.features, [d.rois for d in drawn])
        labels = torch.cat([d.labels for d in drawn])
        wanted = torch.cat([d.deltas for d in drawn])
        rows = (labels < self.num_classes).nonzero().flatten()
        count = max(len(labels), 1)
        box = F.smooth_l1_loss(deltas[rows, labels[rows]], wanted, beta=self.roi.beta, reduction="sum") / count
        return {**losses, "loss_cls": F.cross_entropy(logits, labels, reduction="sum") / count, "loss_bbox": box}

    @torch.no_grad()
    def _draw(self, proposals: Tensor, target: Target, seed: int | None) -> Drawn:
        """The ground truth joins the proposals, so that there is something to learn from the start."""
        s = self.roi
        rois = torch.cat([proposals, target.boxes[~target.ignore]])
        matched = assign(rois, target, positive=s.positive, negative=s.positive, crowd=s.crowd)
        generator = generator_for(seed, target.image_id, STAGE)
        positive, background = draw(matched, s.batch, s.positive_fraction, generator)
        rows = torch.cat([positive, background])
        labels = torch.full_like(rows, self.num_classes)
        labels[: len(positive)] = target.labels[matched[positive]]
        deltas = encode(target.boxes[matched[positive]], rois[positive], s.weights)
        return Drawn(rois[rows], labels, deltas)

    @torch.no_grad()
    def decode(self, raw: FasterRCNNRaw, sizes: Sequence[Size]) -> list[Detections]:
        """The detections of every picture in pixels of the padded batch, best first."""
        rois = self.rpn.propose(raw.rpn, sizes, training=False)
        logits, deltas = self.roi_forward(raw.features, rois)
        counts = [len(r) for r in rois]
        scores = torch.split(logits.softmax(-1)[:, :-1], counts)
        parts = zip(rois, scores, torch.split(deltas, counts), sizes, strict=True)
        return [self._decode_one(*part) for part in parts]

    def _decode_one(self, rois: Tensor, scores: Tensor, deltas: Tensor, size: Size) -> Detections:
        rows, labels = (scores > self.roi.score).nonzero(as_tuple=True)  # only what can count is decoded
        boxes = clip(decode(deltas[rows, labels], rois[rows], self.roi.weights), size)
        wide = wide_enough(boxes, self.roi.min_size)
        found = scores[rows, labels]
        return suppress(boxes[wide], found[wide], labels[wide], iou=self.roi.nms_iou, keep=self.roi.keep)
