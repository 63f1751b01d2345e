"""FCOS (Tian et al. 2019, Fully Convolutional One-Stage Object Detection).

Two convolutional towers, shared by all levels, predict at every location the class, the distances to the four sides of
the box, and the centerness. A location is positive for the smallest object whose size fits its level and in whose
center region it lies. Scores are multiplied by the centerness, which lowers those of boxes predicted near the edge of
an object.

Shapes: B images, L levels, N locations of a level, M locations of all levels, K classes, G objects, P positive
locations of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_range, require_ranges
from tldet.models.assigners.matching import BACKGROUND, gather_positives, ignore_crowds
from tldet.models.boxes import (
    AnchorGenerator,
    Sizes,
    center_form,
    centerness,
    flatten_levels,
    from_distances,
    product,
    to_distances,
)
from tldet.models.heads.base import Head
from tldet.models.losses import POSITIVES, LossNormalizers, Normalizer, focal_loss, giou_loss
from tldet.models.postprocess import DetectionTensors, Scoring, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, build_towers, level_scales
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import constant
from tldet.text import counted

_CHUNK = 2_000_000  # (location, object) pairs per block: 32 MB of distances
MAX_LOG_DISTANCE = 10.0  # keeps exp() finite: 22,000 pixels


@dataclass(frozen=True)
class FCOSSettings(SelectSettings):
    """Settings of FCOS besides its layers.

    Attributes:
        borders: limits between every two levels: the largest distance to a side, in pixels, for which a location of the
            finer level is positive.
        closed: a distance equal to a limit belongs to both levels (mmdet) or to neither (torchvision).
        center_sample_radius: center sampling: only locations within this many strides of an object's center, along both
            axes, are positive; None takes all locations inside its box.
        offset: position of a location in its cell, relative to the stride: 0.5 for the center (the paper, mmdet), 0 for
            the top left corner (torchvision).
        step: see :class:`~tldet.models.boxes.AnchorGenerator`.
        distances: activation of the box outputs: "relu", then in strides, or "exp", in pixels (the paper).
        alpha: weight of positives in the focal loss.
        gamma: exponent of the focal loss that reduces the loss of easy locations.
        box_weight: weight of each box in the box loss: its "centerness" (the paper, mmdet), or "equal" (torchvision).
        scoring: see :func:`~tldet.models.postprocess.best_scores`.
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet, torchvision).
        ignore_iof_thr: fraction of a location's cell inside a crowd region at or above which the location is ignored,
            not background.
        eval_loss: for comparison with mmdet, whose forward pass multiplies distances by the stride in eval mode, but
            not their targets: "mmdet" does the same for losses in eval mode without a seed, "same" does not.
    """

    nms_iou_thr: float = 0.6
    borders: Sequence[float] = (64.0, 128.0, 256.0, 512.0)
    closed: bool = True
    center_sample_radius: float | None = 1.5
    offset: float = 0.5
    step: Literal["nominal", "torchvision"] = "nominal"
    distances: Literal["relu", "exp"] = "relu"
    alpha: float = 0.25
    gamma: float = 2.0
    box_weight: Literal["centerness", "equal"] = "centerness"
    scoring: Scoring = "product"
    loss_normalizer: Normalizer = "running"
    ignore_iof_thr: float = 0.5
    eval_loss: Literal["same", "mmdet"] = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_ranges(self, center_sample_radius="(0, inf]", offset="[0, 1]", ignore_iof_thr="[0, inf]")
        require_ranges(self, alpha="[0, 1]", gamma="[0, inf)")
        if self.borders:  # empty for a single level
            require_range("borders", self.borders, "(0, inf]")


class FCOSRaw(NamedTuple):
    """Raw outputs, a tensor per level."""

    logits: tuple[Tensor, ...]  # L x (B, K, H, W)
    distances: tuple[Tensor, ...]  # L x (B, 4, H, W) float32 pixels: left, top, right, bottom
    centerness: tuple[Tensor, ...]  # L x (B, 1, H, W) logits


@HEADS.register_module()
class FCOSHead(Head):
    """One-stage head that predicts class, box and centerness of every location.

    Args:
        in_channels: channels of the pyramid.
        strides: strides of the pyramid, finest first.
        num_classes: number of classes K.
        channels: channels of the towers; None for those of the pyramid.
        stacked_convs: number of convolutions in each tower.
        norm: "group" adds a GroupNorm after each convolution of the towers.
        conv_bias: the convolutions have a bias.
        scales: multiply the box outputs by a trainable factor per level (not in torchvision).
        centerness_on: tower that predicts centerness: "class" in the paper, "box" in the authors' later versions.
        prior: initial probability of each class.
        settings: all settings that are not layers.

    Raises:
        ValueError: the number of borders does not fit the number of levels.
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
        conv_bias: bool = True,
        scales: bool = True,
        centerness_on: Literal["box", "class"] = "box",
        prior: float = 0.01,
        settings: FCOSSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.strides, self.centerness_on = num_classes, tuple(strides), centerness_on
        self.settings = s = settings or FCOSSettings()
        if len(s.borders) != len(strides) - 1:
            raise ValueError(
                f"{len(s.borders)} borders for {counted(len(strides), 'level')}; there is one between every two"
            )
        self.cells = AnchorGenerator([[stride] for stride in strides], [1.0], strides, step=s.step, offset=s.offset)
        outputs = (num_classes, 4, 1)
        towers = build_towers(in_channels, outputs, channels, stacked_convs, norm=norm, bias=conv_bias, prior=prior)
        self.cls_tower, self.box_tower, (self.cls_score, self.bbox_pred, self.centerness) = towers
        self.scales = level_scales(len(strides)) if scales else None
        self.normalizers = LossNormalizers(s.loss_normalizer, positives=POSITIVES, weights=POSITIVES / 2)
        if s.distances == "relu":  # a distance below zero would get no gradient
            assert self.bbox_pred.bias is not None
            nn.init.ones_(self.bbox_pred.bias)

    def forward(self, features: Sequence[Tensor]) -> FCOSRaw:
        """Compute the raw outputs of L x (B, C, H, W) features."""
        logits, distances, central = [], [], []
        for number, level in enumerate(features):
            classes, boxes = self.cls_tower(level), self.box_tower(level)
            logits.append(self.cls_score(classes))
            distances.append(self._distances(self.bbox_pred(boxes).float(), number))
            central.append(self.centerness(boxes if self.centerness_on == "box" else classes))
        return FCOSRaw(tuple(logits), tuple(distances), tuple(central))

    def _distances(self, outputs: Tensor, level: int) -> Tensor:
        outputs = outputs if self.scales is None else outputs * self.scales[level]
        if self.settings.distances == "exp":
            return outputs.clamp(max=MAX_LOG_DISTANCE).exp()
        return F.relu(outputs) * self.strides[level]

    def loss(
        self, raw: FCOSRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute focal, centerness and GIoU loss; see :meth:`Head.loss`.

        The first two are divided by the number of positive locations, the last one by the sum of their weights.
        """
        s = self.settings
        cells = self.cells(raw.logits)
        positives = gather_positives([self._assign(cells, target) for target in targets], targets)
        points = center_form(torch.cat(cells))[0][positives.reference]  # (P, 2)
        expected = centerness(to_distances(points, positives.boxes))  # (P,)
        distances = raw.distances
        if s.eval_loss == "mmdet" and seed is None and not self.training:
            distances = tuple(level * stride for level, stride in zip(distances, self.strides, strict=True))
        boxes = from_distances(points, positives.select(flatten_levels(distances, 4)))  # (P, 4)
        central = positives.select(flatten_levels(raw.centerness, 1)).squeeze(-1)  # (P,)
        logits = flatten_levels(raw.logits, self.num_classes)  # (B, M, K)
        weight = expected if s.box_weight == "centerness" else torch.ones_like(expected)
        total, images = weight.sum(), len(targets)
        count = self.normalizers.divisor("positives", len(positives.labels), images)
        weighted = self.normalizers.divisor("weights", total, images, batch=total.clamp(min=1e-6))
        return {
            "loss_cls": focal_loss(logits, positives, alpha=s.alpha, gamma=s.gamma).sum() / count,
            "loss_bbox": (giou_loss(boxes, positives.boxes) * weight).sum() / weighted,
            "loss_centerness": F.binary_cross_entropy_with_logits(central, expected, reduction="sum") / count,
        }

    @torch.no_grad()
    def _assign(self, cells: Sequence[Tensor], target: Target) -> Tensor:
        """Return the row of ``target``, BACKGROUND or IGNORED of each location, (M,), from L x (N, 4) cells."""
        rows = target.known.objects
        locations = torch.cat(list(cells))  # (M, 4)
        if not len(rows):
            matched = torch.full_like(locations[:, 0], BACKGROUND, dtype=torch.int64)
        else:
            edges = constant([-torch.inf, *self.settings.borders, torch.inf], locations)
            limits = [edges[i : i + 2].expand(len(level), 2) for i, level in enumerate(cells)]
            size = max(1, _CHUNK // len(rows))
            parts = zip(torch.split(locations, size), torch.split(torch.cat(limits), size), strict=True)
            matched = torch.cat([self._smallest(*part, target.boxes[rows]) for part in parts])
        return ignore_crowds(matched, rows, locations, target, ignore_iof_thr=self.settings.ignore_iof_thr)

    def _smallest(self, cells: Tensor, limits: Tensor, boxes: Tensor) -> Tensor:
        """Return the smallest box (m,) that each location may be assigned to, or BACKGROUND.

        Args:
            cells: (m, 4) some of the cells.
            limits: (m, 2) smallest and largest distance of the level of each cell.
            boxes: (G, 4) xyxy pixels.
        """
        s = self.settings
        points, strides = center_form(cells)
        distances = to_distances(points[:, None], boxes)  # (m, G, 4)
        longest = distances.amax(-1)
        low, high = limits[:, :1], limits[:, 1:]
        fits = (longest >= low) & (longest <= high) if s.closed else (longest > low) & (longest < high)  # (m, G)
        fits &= distances.amin(-1) > 0
        centers, extents = center_form(boxes)
        if s.center_sample_radius is not None:
            fits &= (points[:, None] - centers).abs().amax(-1) < s.center_sample_radius * strides[:, :1]
        smallest = torch.where(fits, product(extents), torch.inf).min(1)
        return smallest.indices.masked_fill(smallest.values == torch.inf, BACKGROUND)

    @torch.no_grad()
    def decode_tensors(self, raw: FCOSRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        s = self.settings
        return dense_detections(self.cells(raw.logits), raw, _boxes, sizes, s, self.num_classes, s.scoring)


def _boxes(distances: Tensor, cells: Tensor, _: int) -> Tensor:
    return from_distances(center_form(cells)[0], distances)
