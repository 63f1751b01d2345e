"""RetinaNet (Lin et al. 2017, Focal Loss for Dense Object Detection).

The method in order: two small convolutional towers, shared by all levels, say the class and the box of every anchor.
Anchors that overlap an object by ``positive`` learn it, those below ``negative`` are background, the rest do not
count; the focal loss keeps the many easy ones from drowning the few that matter.

Letters for shapes: B pictures, L levels, A anchors a cell, N anchors of a level, M of all levels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.models.boxes import AnchorGenerator, clip, decode, encode, flatten_level
from tldet.models.matching import IGNORED, Rescue, assign
from tldet.models.postprocess import suppress, top_rows
from tldet.registry import HEADS
from tldet.structures import Detections, Size, Target

UNIT = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True)
class RetinaSettings:
    """How anchors learn and how boxes come out; the defaults are torchvision's.

    Attributes:
        sizes: anchor sizes of every level, in pixels.
        ratios: anchor height / width.
        step: see :class:`~tldet.models.boxes.AnchorGenerator`.
        positive: overlap from which an anchor learns an object.
        negative: overlap below which it is background.
        low_quality: see :func:`~tldet.models.matching.match`.
        least: see :func:`~tldet.models.matching.match`.
        alpha: weight of objects in the focal loss.
        gamma: its damping of easy anchors.
        beta: corner of the smooth L1 loss; 0 for L1.
        normalise: "picture" divides by each picture's positives and averages over pictures (torchvision), "batch"
            divides the batch's sum by the batch's positives (mmdet, Detectron2).
        crowd: share of an anchor inside a crowd region from which it is no background.
        score: least score of a detection.
        pre_nms: best (anchor, class) pairs of each level that are decoded.
        nms_iou: overlap above which the lesser of two detections of a class is dropped.
        keep: at most so many detections a picture.
    """

    sizes: Sequence[Sequence[float]] = ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406), (512, 645, 812))
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    step: Literal["nominal", "torchvision"] = "nominal"
    positive: float = 0.5
    negative: float = 0.4
    low_quality: Rescue = "own"
    least: float = 0.0
    alpha: float = 0.25
    gamma: float = 2.0
    beta: float = 0.0
    normalise: Literal["picture", "batch"] = "picture"
    crowd: float = 0.5
    score: float = 0.05
    pre_nms: int = 1000
    nms_iou: float = 0.5
    keep: int = 100


class RetinaRaw(NamedTuple):
    """What the towers say: a tensor a level."""

    logits: tuple[Tensor, ...]  # L x (B, A * K, H, W)
    deltas: tuple[Tensor, ...]  # L x (B, A * 4, H, W)


@HEADS.register_module()
class RetinaNetHead(nn.Module):
    """Class and box of every anchor in one stage.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K.
        channels: width of the towers; None for that of the pyramid.
        stacked_convs: convolutions in each tower.
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
        prior: float = 0.01,
        settings: RetinaSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.settings = settings or RetinaSettings()
        s, width = self.settings, channels or in_channels
        self.anchors = AnchorGenerator(s.sizes, s.ratios, strides, step=s.step)
        self.cls_tower = tower(in_channels, width, stacked_convs)
        self.box_tower = tower(in_channels, width, stacked_convs)
        self.cls_score = nn.Conv2d(width, self.anchors.per_cell * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(width, self.anchors.per_cell * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        assert self.cls_score.bias is not None
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior) / prior))

    def forward(self, features: Sequence[Tensor]) -> RetinaRaw:
        """L x (B, C, H, W) to the raw classes and deltas of every level."""
        logits = tuple(self.cls_score(self.cls_tower(level)) for level in features)
        return RetinaRaw(logits, tuple(self.bbox_pred(self.box_tower(level)) for level in features))

    def loss(
        self, raw: RetinaRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None
    ) -> dict[str, Tensor]:
        """Focal loss and box loss, divided by the number of positive anchors."""
        s = self.settings
        anchors = torch.cat(self.anchors(raw.logits))  # (M, 4)
        logits = torch.cat([flatten_level(level, self.num_classes) for level in raw.logits], 1)  # (B, M, K)
        deltas = torch.cat([flatten_level(level, 4) for level in raw.deltas], 1)  # (B, M, 4)
        classes, boxes, counts = [], [], []
        for row, target in enumerate(targets):
            limits = {"positive": s.positive, "negative": s.negative, "least": s.least, "crowd": s.crowd}
            matched = assign(anchors, target, low_quality=s.low_quality, **limits)
            counted = matched != IGNORED
            rows = (matched[counted] >= 0).nonzero().flatten()
            positive = (matched >= 0).nonzero().flatten()
            labels = target.labels[matched[positive]]
            classes.append(focal_loss_sum(logits[row][counted], rows, labels, alpha=s.alpha, gamma=s.gamma))
            wanted = encode(target.boxes[matched[positive]], anchors[positive], UNIT)
            boxes.append(F.smooth_l1_loss(deltas[row, positive].float(), wanted, beta=s.beta, reduction="sum"))
            counts.append(max(len(positive), 1) if s.normalise == "picture" else len(positive))
        if s.normalise == "batch":
            share = 1.0 / max(sum(counts), 1)
            return {"loss_cls": torch.stack(classes).sum() * share, "loss_bbox": torch.stack(boxes).sum() * share}
        weight = logits.new_tensor([1 / count / len(targets) for count in counts], dtype=torch.float32)
        return {"loss_cls": torch.stack(classes) @ weight, "loss_bbox": torch.stack(boxes) @ weight}

    @torch.no_grad()
    def decode(self, raw: RetinaRaw, sizes: Sequence[Size]) -> list[Detections]:
        """The detections of every picture in pixels of the padded batch, best first."""
        s = self.settings
        boxes, scores, labels = [], [], []
        for anchors, level_logits, level_deltas in zip(self.anchors(raw.logits), raw.logits, raw.deltas, strict=True):
            flat = flatten_level(level_logits, self.num_classes).flatten(1).float()  # (B, N * K)
            best, pairs = top_rows(flat, s.pre_nms)
            rows = pairs // self.num_classes  # (B, n)
            chosen = flatten_level(level_deltas, 4).gather(1, rows[..., None].expand(-1, -1, 4))
            boxes.append(decode(chosen, anchors[rows], UNIT))
            scores.append(best.sigmoid())
            labels.append(pairs % self.num_classes)
        box, score, label = torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(labels, 1)
        return [self._keep(clip(box[b], size), score[b], label[b]) for b, size in enumerate(sizes)]

    def _keep(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        good = scores > self.settings.score
        return suppress(boxes[good], scores[good], labels[good], iou=self.settings.nms_iou, keep=self.settings.keep)


def tower(in_channels: int, width: int, depth: int) -> nn.Sequential:
    """``depth`` 3x3 convolutions with ReLU."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(in_channels if i == 0 else width, width, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def focal_loss_sum(logits: Tensor, rows: Tensor, labels: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss (Lin et al. 2017, equation 5), summed.

    Every entry is background but those at ``(rows, labels)``: so no one-hot target of the logits' size is made.

    Args:
        logits: (A, K) raw scores of the references that count.
        rows: (P,) rows that hold an object.
        labels: (P,) its class.
        alpha: weight of positives (1 - alpha for background).
        gamma: how much easy entries are damped.
    """
    logits = logits.float()
    background = (1 - alpha) * (torch.sigmoid(logits) ** gamma * F.softplus(logits)).sum()
    at = logits[rows, labels]
    there = (1 - alpha) * torch.sigmoid(at) ** gamma * F.softplus(at)
    here = alpha * torch.sigmoid(-at) ** gamma * F.softplus(-at)
    return background + (here - there).sum()
