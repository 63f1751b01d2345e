"""Cascade R-CNN (Cai and Vasconcelos 2018), optionally with masks (Cai and Vasconcelos 2019, section 5).

The RPN proposes regions. The first stage classifies them and corrects their boxes as in Faster R-CNN. Each further
stage does the same with the boxes of the stage before: its IoU threshold for positives is higher, and the errors that
it corrects are smaller. In prediction, the boxes are those of the last stage, the scores are averaged over all stages.

Shapes: B images, L levels, R regions of all images, r regions of an image, K classes, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from tldet.models.boxes import Sizes, decode_boxes, limits_of
from tldet.models.heads.base import Head
from tldet.models.pooling import PaddedBoxes, Regions, as_floats, regions_of
from tldet.models.postprocess import DetectionTensors
from tldet.models.two_stage.box import BoxBranch, RoISettings, select_in_regions
from tldet.models.two_stage.loss import STAGE, SampledRegions, TwoStageRaw, rpn_loss, stage_loss
from tldet.models.two_stage.mask import MaskBranch, MaskSettings, mask_loss, with_masks
from tldet.models.two_stage.rpn import RPN, RPNSettings
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import true_rows

Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class CascadeSettings:
    """Settings of the stages; the defaults are those of mmdet (section 4.3 of the paper).

    Attributes:
        pos_iou_thr: IoU at or above which a region is positive, for each stage.
        target_stds: standard deviations of the box deltas dx, dy, dw, dh of each stage: the size of the errors that it
            corrects.
        stage_loss_weights: weight of the losses of each stage.
        average: scores are averaged over the stages as "logits" (mmdet) or "probabilities" (the paper, Detectron2).

    Raises:
        ValueError: the settings have different numbers of stages.
    """

    pos_iou_thr: Sequence[float] = (0.5, 0.6, 0.7)
    target_stds: Sequence[Four] = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
    stage_loss_weights: Sequence[float] = (1.0, 0.5, 0.25)
    average: Literal["logits", "probabilities"] = "probabilities"

    def __post_init__(self) -> None:
        if not 0 < len(self.pos_iou_thr) == len(self.target_stds) == len(self.stage_loss_weights):
            raise ValueError("cascade: pos_iou_thr, target_stds and stage_loss_weights need one value per stage each")

    def stages(self, roi: RoISettings) -> list[RoISettings]:
        """Return the settings of each box branch; boxes are class-agnostic, so that the next stage can use them."""
        inverse = [(1 / a, 1 / b, 1 / c, 1 / d) for a, b, c, d in self.target_stds]
        pairs = zip(self.pos_iou_thr, inverse, strict=True)
        return [replace(roi, pos_iou_thr=p, weights=w, class_agnostic=True) for p, w in pairs]


@HEADS.register_module()
class CascadeRCNNHead(Head):
    """Multi-stage head with an RPN, and a box branch and optionally a mask branch per stage.

    Args:
        in_channels: channels of the pyramid.
        strides: strides of the pyramid, finest first.
        num_classes: number of classes K, without background.
        rpn: settings of the RPN.
        roi: settings that the box branches share.
        cascade: settings that differ between the box branches.
        mask: settings of the mask branches; None for boxes only.
    """

    softmax = True

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int = 80,
        *,
        rpn: RPNSettings | None = None,
        roi: RoISettings | None = None,
        cascade: CascadeSettings | None = None,
        mask: MaskSettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.predicts_masks = num_classes, mask is not None
        self.cascade = cascade or CascadeSettings()
        stages = self.cascade.stages(roi or RoISettings())
        self.rpn = RPN(in_channels, strides, rpn or RPNSettings())
        self.box = nn.ModuleList(BoxBranch(in_channels, strides, num_classes, s) for s in stages)
        self.mask = nn.ModuleList(
            MaskBranch(in_channels, strides, num_classes, s, mask) for s in stages if mask is not None
        )
        if mask is not None:
            self.mask_threshold, self.mask_paste = mask.threshold, mask.paste
        rows = [f"box.{i}.cls_score" for i in range(len(self.box))]
        self.background_layers = tuple(rows)
        if mask is not None and not mask.class_agnostic:
            rows += [f"mask.{i}.mask_logits" for i in range(len(self.mask))]
        self.class_layers = tuple(rows)

    @property
    def boxes(self) -> list[BoxBranch]:
        """Box branch of each stage."""
        return [branch for branch in self.box if isinstance(branch, BoxBranch)]

    @property
    def masks(self) -> list[MaskBranch]:
        """Mask branch of each stage; empty if the head predicts no masks."""
        return [branch for branch in self.mask if isinstance(branch, MaskBranch)]

    @property
    def stages(self) -> list[RoISettings]:
        """Settings of each stage."""
        return [branch.settings for branch in self.boxes]

    def forward(self, features: Sequence[Tensor]) -> TwoStageRaw:
        """Compute the raw outputs of the RPN of L x (B, C, H, W) features; the features are kept for pooling."""
        return TwoStageRaw(self.rpn(features), as_floats(features[: self.stages[0].levels]))

    def loss(
        self, raw: TwoStageRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of the RPN, and of each stage: ``s0.loss_cls``, ``s0.loss_bbox``, ``s0.loss_mask``, ...

        Arguments are those of :meth:`Head.loss`.
        """
        detect = partial(self._detect, raw.features, sizes=sizes)
        rois, targets, losses = rpn_loss(
            self.rpn, raw, targets, sizes, seed, detect=detect, branches=self.box, settings=self.stages[-1]
        )
        for number, (box, weight) in enumerate(zip(self.boxes, self.cascade.stage_loss_weights, strict=True)):
            own, regions, deltas = stage_loss(box, raw.features, rois, targets, seed, STAGE + number)
            if self.predicts_masks:
                own["loss_mask"] = mask_loss(self.masks[number], raw.features, regions, targets)
            losses.update({f"s{number}.{name}": weight * value for name, value in own.items()})
            if number + 1 < len(self.stages):
                rois = next_proposals(regions, deltas, sizes, box.settings)
        return losses

    @torch.no_grad()
    def decode_tensors(self, raw: TwoStageRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        found = self._detect(raw.features, self.rpn.propose(raw.rpn, sizes, training=False), sizes)
        return with_masks(self.masks, raw.features, found) if self.predicts_masks else found

    def _detect(self, features: Sequence[Tensor], proposals: PaddedBoxes, sizes: Sizes) -> DetectionTensors:
        predicted, corrected = [], proposals.regions()
        for box in self.boxes:
            regions = corrected
            logits, deltas = box(features, regions)
            predicted.append(logits if self.cascade.average == "logits" else logits.softmax(-1))
            corrected = correct(regions, deltas, sizes, box.settings)
        scores = torch.stack(predicted).mean(0)
        scores = scores.softmax(-1) if self.cascade.average == "logits" else scores
        rois = PaddedBoxes(proposals.padded(regions.boxes), proposals.counts)
        return select_in_regions(rois, scores, deltas, sizes, box.settings)


def next_proposals(
    regions: Sequence[SampledRegions], deltas: Tensor, sizes: Sizes, settings: RoISettings
) -> list[Tensor]:
    """Return the corrected regions of each image, B x (r, 4), without those of ground-truth boxes.

    Each stage adds the ground truth itself.

    Args:
        regions: sampled regions of each image.
        deltas: (R, 1, 4) class-agnostic deltas.
        sizes: (height, width) of each image.
        settings: settings of the stage that predicted the deltas.
    """
    kept = true_rows([~one.is_truth for one in regions])
    corrected = correct(regions_of([one.rois for one in regions]), deltas, sizes, settings).boxes
    parts = torch.split(corrected, [len(one.rois) for one in regions])
    return [boxes[rows] for boxes, rows in zip(parts, kept, strict=True)]


@torch.no_grad()
def correct(rois: Regions, deltas: Tensor, sizes: Sizes, s: RoISettings) -> Regions:
    """Apply class-agnostic deltas (R, 1, 4) to regions, and clip them to their images."""
    boxes = decode_boxes(deltas[:, 0], rois.boxes, s.weights)
    return Regions(boxes.clamp(min=0).minimum(limits_of(sizes, boxes)[rois.image]), rois.image)
