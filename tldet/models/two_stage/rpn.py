"""Region proposal network (Ren et al. 2015; on a feature pyramid: Lin et al. 2017, section 4.1).

Shapes: B images, L levels, A anchors per cell, M anchors of all levels, n best anchors of a level, P proposals of an
image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.models.assigners.matching import IGNORED, LowQuality, assign_targets, draw_samples, generator_for
from tldet.models.boxes import (
    AnchorGenerator,
    Sizes,
    clip_batch,
    decode_boxes,
    encode_boxes,
    flatten_level,
    wide_enough,
)
from tldet.models.losses import LossNormalizers, Normalizer
from tldet.models.ops.nms import nms_rows
from tldet.models.pooling import PaddedBoxes
from tldet.models.postprocess import take_rows, top_rows
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import constant, exporting

_FAR_AWAY = (-2e6, -2e6, -1e6, -1e6)  # xyxy pixels
_STAGE = 1  # distinguishes the random numbers of this stage from those of the second one


@dataclass(frozen=True)
class RPNSettings:
    """Settings of the region proposal network; the defaults are torchvision's.

    Attributes:
        sizes: anchor sizes of each level, in pixels.
        ratios: height / width of the anchors.
        rounding: see :class:`~tldet.models.boxes.AnchorGenerator`.
        step: see :class:`~tldet.models.boxes.AnchorGenerator`.
        offset: see :class:`~tldet.models.boxes.AnchorGenerator`; use the same in ``roi``.
        channels: channels of the 3x3 convolutions; None for those of the pyramid.
        convs: number of 3x3 convolutions.
        pos_iou_thr: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        neg_iou_thr: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        low_quality: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        min_pos_iou: see :func:`~tldet.models.assigners.matching.match_by_iou`.
        allowed_border: anchors that extend this many pixels or more beyond the image are ignored in training (as in
            mmdet; Ren et al. 2015, section 3.3, ignore all that cross the border); None ignores no anchor.
        num_samples: number of anchors sampled per image for the loss.
        pos_fraction: largest fraction of positives among the sampled anchors.
        beta: threshold of the smooth L1 loss between its quadratic and its linear part; 0 for L1.
        loss_normalizer: "running": running mean of the anchors sampled per image, independent of the split into
            micro-batches; "batch": the anchors sampled in the micro-batch (torchvision, mmdet).
        ignore_iof_thr: fraction of an anchor inside a crowd region at or above which it is ignored, not background.
        spare: IoU with a confident detection of a class that is not annotated on the image at or above which an anchor
            is ignored, not background.
        nms_pre: largest number of proposals per level before NMS, in training and in testing.
        nms_post: largest number of proposals per image after NMS, in training and in testing.
        nms_iou_thr: IoU above which NMS drops the proposal with the lower score; levels are separate.
        min_bbox_size: smallest side of a proposal in pixels.

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
    low_quality: LowQuality = "own"
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
        require_ranges(self, offset="[0, 1]", pos_iou_thr="[0, 1]", neg_iou_thr="[0, 1]", min_pos_iou="[0, 1]")
        require_ranges(self, allowed_border="[0, inf]", num_samples="[1, inf]", pos_fraction="[0, 1]")
        require_ranges(self, beta="[0, inf)", ignore_iof_thr="[0, inf]", spare="[0, inf]", nms_pre="[1, inf]")
        require_ranges(self, nms_post="[1, inf]", nms_iou_thr="[0, 1]", min_bbox_size="[0, inf)")


class RPNRaw(NamedTuple):
    """Raw outputs, a tensor per level."""

    logits: tuple[Tensor, ...]  # L x (B, A, H, W)
    deltas: tuple[Tensor, ...]  # L x (B, 4 * A, H, W)


class RPN(nn.Module):
    """Convolutional network, shared by all levels, that predicts objectness and box of every anchor."""

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
        """Compute objectness and deltas of L x (B, C, H, W) features."""
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
        """Compute binary cross entropy and smooth L1 loss of the sampled anchors, divided by their number.

        Arguments are those of :meth:`Head.loss`.
        """
        s = self.settings
        anchors = torch.cat(self.anchors(raw.logits))  # (M, 4)
        logits = torch.cat([flatten_level(level, 1) for level in raw.logits], 1).squeeze(-1).float()  # (B, M)
        deltas = torch.cat([flatten_level(level, 4) for level in raw.deltas], 1)  # (B, M, 4)
        matched = [self._assign(anchors, target, size) for target, size in zip(targets, sizes, strict=True)]
        generators = [generator_for(seed, target.image_id, _STAGE) for target in targets]
        samples = draw_samples(matched, s.num_samples, s.pos_fraction, generators)
        scores, truths, predicted, expected = [], [], [], []
        for image, (positive, background) in enumerate(samples):
            sampled = torch.cat([positive, background])
            scores.append(logits[image, sampled])
            truths.append((matched[image][sampled] >= 0).float())
            predicted.append(deltas[image, positive])
            expected.append(encode_boxes(targets[image].boxes[matched[image][positive]], anchors[positive]))
        score, truth = torch.cat(scores), torch.cat(truths)
        count = self.normalizers.divisor("anchors", len(score), len(targets))
        box = F.smooth_l1_loss(torch.cat(predicted).float(), torch.cat(expected), beta=s.beta, reduction="sum")
        return {
            "loss_rpn_cls": F.binary_cross_entropy_with_logits(score, truth, reduction="sum") / count,
            "loss_rpn_bbox": box / count,
        }

    def _assign(self, anchors: Tensor, target: Target, size: Size) -> Tensor:
        """Assign the anchors of an image, (M,); those beyond ``allowed_border`` are IGNORED."""
        s = self.settings
        thresholds = {"pos_iou_thr": s.pos_iou_thr, "neg_iou_thr": s.neg_iou_thr, "min_pos_iou": s.min_pos_iou}
        thresholds |= {"ignore_iof_thr": s.ignore_iof_thr, "spare": s.spare}
        if s.allowed_border is None:
            return assign_targets(anchors, target, low_quality=s.low_quality, **thresholds)
        far = constant([size[1], size[0]], anchors) + s.allowed_border
        inside = ((anchors[:, :2] >= -s.allowed_border) & (anchors[:, 2:] < far)).all(1)
        # Far away, the other anchors have no IoU with any box, so that they are no box's best anchor
        kept = torch.where(inside[:, None], anchors, constant(_FAR_AWAY, anchors))
        matched = assign_targets(kept, target, low_quality=s.low_quality, **thresholds)
        return matched.masked_fill(~inside, IGNORED)

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
        if not exporting():  # drop padding that all images share
            kept = kept[:, : max(1, *counts.tolist())]
        return PaddedBoxes(take_rows(clipped, kept), counts)
