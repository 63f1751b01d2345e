"""Cascade R-CNN (Cai and Vasconcelos 2018), with masks where asked for (Cai and Vasconcelos 2019, section 5).

The method in order: the RPN proposes places; a first stage classifies and corrects them as in Faster R-CNN; its boxes
are what the next stage starts from, which counts a region as an object only from a higher overlap on and corrects
smaller errors; and so a third one. In testing the last stage's boxes come out with the stages' scores averaged.

Letters for shapes: B images, R regions of all images, r regions of one, K classes, C channels.
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
from tldet.models.two_stage.box import BoxBranch, RoISettings, detect
from tldet.models.two_stage.loss import STAGE, TwoStageRaw, propose_and_loss, stage_loss
from tldet.models.two_stage.mask import MaskBranch, MaskSettings, mask_loss, with_masks
from tldet.models.two_stage.rpn import RPN, RPNSettings
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import true_rows

Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class CascadeSettings:
    """What differs from stage to stage; the defaults are the paper's (section 4.3) as mmdet has them.

    Attributes:
        pos_iou_thr: overlap from which a region learns an object.
        target_stds: standard deviations of the box deltas dx, dy, dw, dh: the errors a stage expects.
        stage_loss_weights: factor of a stage's losses.
        average: of the stages' "logits" (mmdet) or "probabilities" (the paper, Detectron2) come the scores.

    Raises:
        ValueError: the stages are not equally many in all of them.
    """

    pos_iou_thr: Sequence[float] = (0.5, 0.6, 0.7)
    target_stds: Sequence[Four] = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
    stage_loss_weights: Sequence[float] = (1.0, 0.5, 0.25)
    average: Literal["logits", "probabilities"] = "probabilities"

    def __post_init__(self) -> None:
        if not 0 < len(self.pos_iou_thr) == len(self.target_stds) == len(self.stage_loss_weights):
            raise ValueError("cascade: pos_iou_thr, target_stds and stage_loss_weights need one value per stage each")

    def stages(self, roi: RoISettings) -> list[RoISettings]:
        """The settings of each stage's box branch; boxes are class-agnostic, so that they can be handed on."""
        inverse = [(1 / a, 1 / b, 1 / c, 1 / d) for a, b, c, d in self.target_stds]
        pairs = zip(self.pos_iou_thr, inverse, strict=True)
        return [replace(roi, pos_iou_thr=p, weights=w, class_agnostic=True) for p, w in pairs]


@HEADS.register_module()
class CascadeRCNNHead(Head):
    """Proposals, corrected and classified stage by stage.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K, background not counted.
        rpn: the first stage.
        roi: what the box branches have in common.
        cascade: what differs between them.
        mask: a mask branch at every stage; None for boxes alone.
    """

    background_layers: tuple[str, ...] = ()  # of the class layers, whose last row is background: one a stage

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
        self.class_layers = tuple(rows)  # whose rows are classes

    @property
    def stages(self) -> list[RoISettings]:
        """Return the settings of each stage."""
        return [branch.settings for branch in self.box if isinstance(branch, BoxBranch)]

    def forward(self, features: Sequence[Tensor]) -> TwoStageRaw:
        """L x (B, C, H, W) to the proposals' raw outputs, and the features themselves."""
        return TwoStageRaw(self.rpn(features), as_floats(features[: self.stages[0].levels]))

    def loss(
        self, raw: TwoStageRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """The RPN's losses, and ``s0.loss_cls``, ``s0.loss_bbox``, ``s0.loss_mask``, ``s1...`` of the stages."""
        find = partial(self._find, raw.features, sizes=sizes)
        rois, targets, losses = propose_and_loss(
            self.rpn, raw, targets, sizes, seed, find=find, branches=self.box, settings=self.stages[-1]
        )
        for number, (s, weight) in enumerate(zip(self.stages, self.cascade.stage_loss_weights, strict=True)):
            box = self.box[number]
            assert isinstance(box, BoxBranch)
            own, drawn, deltas = stage_loss(box, raw.features, rois, targets, seed, STAGE + number)
            if self.predicts_masks:
                branch = self.mask[number]
                assert isinstance(branch, MaskBranch)
                own["loss_mask"] = mask_loss(branch, raw.features, drawn, targets)
            losses.update({f"s{number}.{name}": weight * value for name, value in own.items()})
            if number + 1 < len(self.stages):
                kept = true_rows([~d.truths for d in drawn])  # the ground truth joins each stage anew
                counts = [len(d.rois) for d in drawn]
                corrected = torch.split(correct(regions_of([d.rois for d in drawn]), deltas, sizes, s).boxes, counts)
                rois = [boxes[rows] for boxes, rows in zip(corrected, kept, strict=True)]
        return losses

    @torch.no_grad()
    def decode_tensors(self, raw: TwoStageRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        found = self._find(raw.features, self.rpn.propose(raw.rpn, sizes, training=False), sizes)
        branches = [branch for branch in self.mask if isinstance(branch, MaskBranch)]
        return with_masks(branches, raw.features, found) if branches else found

    def _find(self, features: Sequence[Tensor], proposals: PaddedBoxes, sizes: Sizes) -> DetectionTensors:
        predicted, corrected = [], proposals.regions()
        for number, s in enumerate(self.stages):
            regions = corrected
            logits, deltas = self.box[number](features, regions)
            predicted.append(logits if self.cascade.average == "logits" else logits.softmax(-1))
            corrected = correct(regions, deltas, sizes, s)
        scores = torch.stack(predicted).mean(0)
        scores = scores.softmax(-1) if self.cascade.average == "logits" else scores
        rois = PaddedBoxes(proposals.padded(regions.boxes), proposals.counts)
        return detect(rois, scores, deltas, sizes, s)


@torch.no_grad()
def correct(rois: Regions, deltas: Tensor, sizes: Sizes, s: RoISettings) -> Regions:
    """Move regions by their class-agnostic deltas (R, 1, 4) and cut them to their images."""
    boxes = decode_boxes(deltas[:, 0], rois.boxes, s.weights)
    return Regions(boxes.clamp(min=0).minimum(limits_of(sizes, boxes)[rois.image]), rois.image)
