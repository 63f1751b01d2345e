"""Region proposal network (Ren et al. 2015): which places are worth a second look.

Letters for shapes: B images, L levels, A anchors a cell, N anchors of a level (H * W * A), M anchors of all levels,
P proposals of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.models.assigners.matching import IGNORED, Rescue, assign, draw_samples, generator_for
from tldet.models.boxes import (
    AnchorGenerator,
    Sizes,
    clip_batch,
    decode_boxes,
    encode_boxes,
    flatten_level,
    wide_enough,
)
from tldet.models.normalizers import LossNormalizers, Normalizer
from tldet.models.pooling import PaddedBoxes
from tldet.models.postprocess import nms_rows, take_rows, top_rows
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import constant, exporting

_STAGE = 1  # tells the random draws of this stage from those of the second one


@dataclass(frozen=True)
class RPNSettings:
    """How proposals are made and learned; the defaults are torchvision's.

    Attributes:
        sizes: anchor sizes of every level, in pixels.
        ratios: anchor height / width.
        rounding: see :class:`~tldet.models.boxes.AnchorGenerator`.
        step: see :class:`~tldet.models.boxes.AnchorGenerator`.
        offset: see :class:`~tldet.models.boxes.AnchorGenerator`; use the same in ``roi``.
        channels: width of the 3x3 convolutions; None for that of the pyramid.
        convs: how many of them.
        pos_iou_thr: overlap from which an anchor is an object.
        neg_iou_thr: overlap below which it is background.
        low_quality: see :func:`~tldet.models.assigners.matching.match`.
        min_pos_iou: see :func:`~tldet.models.assigners.matching.match`.
        allowed_border: anchors that reach this many pixels or more out of the image do not learn (mmdet's
            ``allowed_border``; Ren et al. 2015, section 3.3, leave out all that cross it); None takes all.
        num_samples: anchors drawn an image for the loss.
        pos_fraction: at most this share of them are objects.
        beta: corner of the smooth L1 loss; 0 for L1.
        loss_normalizer: "running": running mean of the anchors sampled per image, independent of the split into
            micro-batches; "batch": the anchors sampled in the micro-batch (torchvision, mmdet).
        ignore_iof_thr: share of an anchor inside a crowd region from which it is no background.
        spare: overlap with a confident detection of a class that the image was not labeled for, from which an
            anchor is no background.
        nms_pre: best anchors of each level that go on, in training and in testing.
        nms_post: proposals of an image that remain, in training and in testing.
        nms_iou_thr: overlap above which the lesser of two proposals of a level is dropped.
        min_bbox_size: least side of a proposal in pixels.

    Raises:
        ConfigError: a value is out of range.
    """

    sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,), (256,), (512,))
    ratios: Sequence[float] = (0.5, 1.0, 2.0)
    rounding: bool = True
    step: Literal["nominal", "torchvision"] = "nominal"
    offset: float = 0.0
    channels: int | None = None
    convs: int = 1
    pos_iou_thr: float = 0.7
    neg_iou_thr: float = 0.3
    low_quality: Rescue = "own"
    min_pos_iou: float = 0.0
    allowed_border: float | None = None
    num_samples: int = 256
    pos_fraction: float = 0.5
    beta: float = 1 / 9
    loss_normalizer: Normalizer = "running"
    ignore_iof_thr: float = 0.5
    spare: float = 0.3
    nms_pre: tuple[int, int] = (2000, 1000)
    nms_post: tuple[int, int] = (2000, 1000)
    nms_iou_thr: float = 0.7
    min_bbox_size: float = 1e-3

    def __post_init__(self) -> None:
        require_ranges(self, sizes="(0, inf)", ratios="(0, inf)", channels="[1, inf]", convs="[0, inf]")
        require_ranges(
            self,
            offset="[0, 1]",
            pos_iou_thr="[0, 1]",
            neg_iou_thr="[0, 1]",
            min_pos_iou="[0, 1]",
            allowed_border="[0, inf]",
        )
        require_ranges(self, num_samples="[1, inf]", pos_fraction="[0, 1]", beta="[0, inf)", ignore_iof_thr="[0, inf]")
        require_ranges(self, spare="[0, inf]", nms_pre="[1, inf]", nms_post="[1, inf]", nms_iou_thr="[0, 1]")
        require_ranges(self, min_bbox_size="[0, inf)")


class RPNRaw(NamedTuple):
    """What the network says: a tensor a level."""

    logits: tuple[Tensor, ...]  # L x (B, A, H, W)
    deltas: tuple[Tensor, ...]  # L x (B, 4 * A, H, W)


class RPN(nn.Module):
    """Objectness and box of every anchor, from one small convolutional head shared by all levels."""

    def __init__(self, in_channels: int, strides: Sequence[int], settings: RPNSettings) -> None:
        super().__init__()
        self.settings = settings
        s, width = settings, settings.channels or in_channels
        self.anchors = AnchorGenerator(s.sizes, s.ratios, strides, rounding=s.rounding, step=s.step, offset=s.offset)
        self.convs = nn.ModuleList(nn.Conv2d(width if i else in_channels, width, 3, padding=1) for i in range(s.convs))
        self.objectness = nn.Conv2d(width, self.anchors.per_cell, 1)
        self.deltas = nn.Conv2d(width, 4 * self.anchors.per_cell, 1)
        self.normalizers = LossNormalizers(s.loss_normalizer, anchors=s.num_samples)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, features: Sequence[Tensor]) -> RPNRaw:
        """L x (B, C, H, W) to objectness and deltas of every level."""
        logits, deltas = [], []
        for level in features:
            hidden = level
            for conv in self.convs:
                hidden = F.relu(conv(hidden), inplace=True)
            logits.append(self.objectness(hidden))
            deltas.append(self.deltas(hidden))
        return RPNRaw(tuple(logits), tuple(deltas))

    def loss(
        self, raw: RPNRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None
    ) -> dict[str, Tensor]:
        """Binary cross entropy and smooth L1 over the anchors drawn, both divided by their number."""
        s = self.settings
        anchors = torch.cat(self.anchors(raw.logits))  # (M, 4)
        logits = torch.cat([flatten_level(level, 1) for level in raw.logits], 1).squeeze(-1).float()  # (B, M)
        deltas = torch.cat([flatten_level(level, 4) for level in raw.deltas], 1)  # (B, M, 4)
        matched = [self._assign(anchors, target, size) for target, size in zip(targets, sizes, strict=True)]
        generators = [generator_for(seed, target.image_id, _STAGE) for target in targets]
        scores, truths, predicted, wanted = [], [], [], []
        for row, (positive, background) in enumerate(draw_samples(matched, s.num_samples, s.pos_fraction, generators)):
            drawn = torch.cat([positive, background])
            scores.append(logits[row, drawn])
            truths.append((matched[row][drawn] >= 0).float())
            predicted.append(deltas[row, positive])
            wanted.append(encode_boxes(targets[row].boxes[matched[row][positive]], anchors[positive]))
        score, truth = torch.cat(scores), torch.cat(truths)
        count = self.normalizers.divisor("anchors", len(score), len(targets))
        box = F.smooth_l1_loss(torch.cat(predicted).float(), torch.cat(wanted), beta=s.beta, reduction="sum")
        return {
            "loss_rpn_cls": F.binary_cross_entropy_with_logits(score, truth, reduction="sum") / count,
            "loss_rpn_bbox": box / count,
        }

    def _assign(self, anchors: Tensor, target: Target, size: Size) -> Tensor:
        """(M,) as :func:`~tldet.models.assigners.matching.assign` gives it; anchors beyond the border are IGNORED."""
        s = self.settings
        limits = {
            "pos_iou_thr": s.pos_iou_thr,
            "neg_iou_thr": s.neg_iou_thr,
            "min_pos_iou": s.min_pos_iou,
            "ignore_iof_thr": s.ignore_iof_thr,
            "spare": s.spare,
        }
        if s.allowed_border is None:
            return assign(anchors, target, low_quality=s.low_quality, **limits)
        far = constant([size[1], size[0]], anchors) + s.allowed_border
        inside = ((anchors[:, :2] >= -s.allowed_border) & (anchors[:, 2:] < far)).all(1).nonzero().flatten()
        matched = torch.full((len(anchors),), IGNORED, dtype=torch.int64, device=anchors.device)
        matched[inside] = assign(anchors[inside], target, low_quality=s.low_quality, **limits)
        return matched

    @torch.no_grad()
    def propose(self, raw: RPNRaw, sizes: Sizes, *, training: bool) -> PaddedBoxes:
        """Compute the proposals of each image, best first."""
        s, phase = self.settings, 0 if training else 1
        boxes, scores, levels = [], [], []
        for number, (anchors, level_logits, level_deltas) in enumerate(
            zip(self.anchors(raw.logits), raw.logits, raw.deltas, strict=True)
        ):
            best, rows = top_rows(flatten_level(level_logits, 1).squeeze(-1).float(), s.nms_pre[phase])  # (B, n)
            boxes.append(decode_boxes(take_rows(flatten_level(level_deltas, 4), rows), anchors[rows]))  # (B, n, 4)
            scores.append(best.sigmoid())
            levels.append(torch.full_like(rows, number))
        clipped = clip_batch(torch.cat(boxes, 1), sizes)
        good = wide_enough(clipped, s.min_bbox_size)
        kept, counts = nms_rows(
            clipped, torch.cat(scores, 1), torch.cat(levels, 1), good, s.nms_iou_thr, s.nms_post[phase]
        )
        if not exporting():  # no place that every image leaves empty
            kept = kept[:, : max(1, *counts.tolist())]
        return PaddedBoxes(take_rows(clipped, kept), counts)
