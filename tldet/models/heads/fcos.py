"""FCOS (Tian et al. 2019, Fully Convolutional One-Stage Object Detection).

The method in order: two small convolutional towers, shared by all levels, say at every location the class, the
distances to the four sides of the box around it, and how central it lies (centerness). A location learns the smallest
object that it lies in the middle of and whose size is its level's; centerness, multiplied into the score, puts down
the boxes that locations at the edge of an object see.

Letters for shapes: B images, L levels, N locations of a level, M of all levels, K classes, G objects, P locations of
the batch that hold an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_range, require_ranges
from tldet.models.assigners.matching import BACKGROUND, learners, spare_crowds
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
from tldet.models.losses import giou_loss
from tldet.models.normalizers import LossNormalizers, Normalizer
from tldet.models.ops.focal import focal_loss_sums
from tldet.models.postprocess import DenseOutputs, DetectionTensors, Scoring, SelectSettings, dense_detections
from tldet.models.towers import TowerNorm, initialize_towers, level_scales, two_towers
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import constant

_CHUNK = 2_000_000  # (location, object) pairs looked at at once: 32 MB of distances
MAX_LOG_DISTANCE = 10.0  # keeps exp() finite: 22,000 pixels
_POSITIVES = 100.0  # assumed per image before the first step


@dataclass(frozen=True)
class FCOSSettings(SelectSettings):
    """How locations learn; those of :class:`~tldet.models.postprocess.SelectSettings` say how boxes come out.

    Attributes:
        borders: between every two levels, the longest distance to a side in pixels at which the next level takes over.
        closed: whether a distance on a border belongs to both levels (mmdet) or to neither (torchvision).
        center_sample_radius: center sampling: only locations within this many strides of an object's center, along both
            axes, are positive; None takes all locations inside its box.
        offset: where in its cell a location lies, as a share of the stride: 0.5 the middle (the paper, mmdet), 0 the
            top left corner (torchvision).
        step: see :class:`~tldet.models.boxes.AnchorGenerator`.
        distances: what the box branch says: "relu" cuts it at 0 and takes it in strides; "exp" is the paper's
            exponential, in pixels.
        alpha: weight of objects in the focal loss.
        gamma: its damping of easy locations.
        box_weight: each box's share in the loss: its "centerness" (the paper, mmdet), or "equal" (torchvision).
        scoring: "product": the class score alone picks the candidates, then centerness is multiplied in (mmdet);
            "root": the square root of the product is the score all along (torchvision).
        loss_normalizer: "running": running mean of the positives per image, independent of the split into
            micro-batches; "batch": the positives of the micro-batch (mmdet, torchvision).
        ignore_iof_thr: share of a location's cell inside a crowd region from which it is no background.
        eval_loss: "mmdet" takes the distances times the stride once more where the loss is computed in eval mode and
            without a seed: mmdet's forward scales them in eval mode only, its targets never; for comparing numbers.
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
        require_ranges(
            self,
            center_sample_radius="(0, inf]",
            offset="[0, 1]",
            alpha="[0, 1]",
            gamma="[0, inf)",
            ignore_iof_thr="[0, inf]",
        )
        if self.borders:  # one level has none
            require_range("borders", self.borders, "(0, inf]")


class FCOSRaw(NamedTuple):
    """What the towers say: a tensor a level."""

    logits: tuple[Tensor, ...]  # L x (B, K, H, W)
    distances: tuple[Tensor, ...]  # L x (B, 4, H, W) float32 pixels: left, top, right, bottom
    centerness: tuple[Tensor, ...]  # L x (B, 1, H, W) logits


@HEADS.register_module()
class FCOSHead(Head):
    """Class, box and centerness of every location in one stage.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K.
        channels: width of the towers; None for that of the pyramid.
        stacked_convs: convolutions in each tower.
        norm: "group" puts a GroupNorm behind each of them.
        conv_bias: whether they have a bias.
        scales: a learned factor a level on what the box branch says (torchvision has none).
        centerness_on: the tower that centerness branches off from; the paper has "class", its authors later "box".
        prior: probability of an object that the classifier starts from.
        settings: everything that is no layer.

    Raises:
        ValueError: the borders do not fit the levels.
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
            raise ValueError(f"{len(s.borders)} borders for {len(strides)} levels; there is one between every two")
        self.cells = AnchorGenerator([[stride] for stride in strides], [1.0], strides, step=s.step, offset=s.offset)
        towers = two_towers(in_channels, channels, stacked_convs, (num_classes, 4), norm=norm, bias=conv_bias)
        self.cls_tower, self.box_tower, self.cls_score, self.bbox_pred = towers
        self.centerness = nn.Conv2d(channels or in_channels, 1, 3, padding=1)
        self.scales = level_scales(len(strides)) if scales else None
        self.normalizers = LossNormalizers(s.loss_normalizer, positives=_POSITIVES, weights=_POSITIVES / 2)
        initialize_towers(self, self.cls_score, prior)
        if s.distances == "relu":  # a side that started below zero would get no gradient
            assert self.bbox_pred.bias is not None
            nn.init.ones_(self.bbox_pred.bias)

    def forward(self, features: Sequence[Tensor]) -> FCOSRaw:
        """L x (B, C, H, W) to classes, distances and centerness of every level."""
        logits, distances, central = [], [], []
        for number, level in enumerate(features):
            seen, around = self.cls_tower(level), self.box_tower(level)
            logits.append(self.cls_score(seen))
            distances.append(self._distances(self.bbox_pred(around).float(), number))
            central.append(self.centerness(around if self.centerness_on == "box" else seen))
        return FCOSRaw(tuple(logits), tuple(distances), tuple(central))

    def _distances(self, said: Tensor, level: int) -> Tensor:
        said = said if self.scales is None else said * self.scales[level]
        if self.settings.distances == "exp":
            return said.clamp(max=MAX_LOG_DISTANCE).exp()
        return F.relu(said) * self.strides[level]

    def loss(
        self, raw: FCOSRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Focal and centerness loss over the number of positive locations, GIoU loss over the sum of their weights."""
        s = self.settings
        cells = self.cells(raw.logits)
        trainable = learners([self._assign(cells, target) for target in targets], targets)
        points = center_form(torch.cat(cells))[0][trainable.place]  # (P, 2)
        wanted = centerness(to_distances(points, trainable.boxes))
        said = raw.distances
        if s.eval_loss == "mmdet" and seed is None and not self.training:
            said = tuple(level * stride for level, stride in zip(said, self.strides, strict=True))
        boxes = from_distances(points, trainable.of(flatten_levels(said, 4)))
        central = trainable.of(flatten_levels(raw.centerness, 1)).squeeze(-1)
        logits = flatten_levels(raw.logits, self.num_classes)
        weight = wanted if s.box_weight == "centerness" else torch.ones_like(wanted)
        total, images = weight.sum(), len(targets)
        count = self.normalizers.divisor("positives", len(trainable.labels), images)
        weighted = self.normalizers.divisor("weights", total, images, batch=total.clamp(min=1e-6))
        return {
            "loss_cls": focal_loss_sums(logits, trainable, alpha=s.alpha, gamma=s.gamma).sum() / count,
            "loss_bbox": (giou_loss(boxes, trainable.boxes) * weight).sum() / weighted,
            "loss_centerness": F.binary_cross_entropy_with_logits(central, wanted, reduction="sum") / count,
        }

    @torch.no_grad()
    def _assign(self, cells: Sequence[Tensor], target: Target) -> Tensor:
        """(M,) row of ``target``, BACKGROUND or IGNORED for every location, from the cells (N, 4) of every level."""
        rows = target.known.objects
        places = torch.cat(list(cells))
        if not len(rows):
            matched = torch.full_like(places[:, 0], BACKGROUND, dtype=torch.int64)
        else:
            edges = constant([-torch.inf, *self.settings.borders, torch.inf], places)
            limits = [edges[i : i + 2].expand(len(level), 2) for i, level in enumerate(cells)]
            chunks = max(1, _CHUNK // len(rows))
            parts = zip(torch.split(places, chunks), torch.split(torch.cat(limits), chunks), strict=True)
            matched = torch.cat([self._smallest(*part, target.boxes[rows]) for part in parts])
        return spare_crowds(matched, rows, places, target, self.settings.ignore_iof_thr)

    def _smallest(self, cells: Tensor, limits: Tensor, boxes: Tensor) -> Tensor:
        """The smallest of the boxes (G, 4) that each of some cells (m, 4) may learn, or BACKGROUND: (m,)."""
        s = self.settings
        points, strides = center_form(cells)
        distances = to_distances(points[:, None], boxes)  # (m, G, 4)
        longest = distances.amax(-1)
        low, high = limits[:, :1], limits[:, 1:]
        fits = (longest >= low) & (longest <= high) if s.closed else (longest > low) & (longest < high)
        fits &= distances.amin(-1) > 0
        centers, extents = center_form(boxes)
        if s.center_sample_radius is not None:
            fits &= (points[:, None] - centers).abs().amax(-1) < s.center_sample_radius * strides[:, :1]
        area = torch.where(fits, product(extents), torch.inf)
        least = area.min(1)
        return least.indices.masked_fill(least.values == torch.inf, BACKGROUND)

    @torch.no_grad()
    def decode_tensors(self, raw: FCOSRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        s, outputs = self.settings, [DenseOutputs(*level) for level in zip(*raw, strict=True)]
        cells = self.cells(raw.logits)
        return dense_detections(cells, outputs, _boxes, sizes, s, self.num_classes, s.scoring)


def _boxes(distances: Tensor, cells: Tensor, _: int) -> Tensor:
    return from_distances(center_form(cells)[0], distances)
