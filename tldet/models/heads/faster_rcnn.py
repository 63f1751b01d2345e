"""Faster R-CNN on a feature pyramid (Ren et al. 2015; Lin et al. 2017, section 4.2).

The method in order: the RPN proposes places; each proposal is pooled from the level that fits its size; a small
branch says its class and corrects its box. Proposals that overlap an object by ``pos_iou_thr`` learn its class and box,
the others learn background; a fixed number is drawn from each image. On an image that was not labeled for every
class, background may be one of the others, and what is confidently found to be one is no background in either stage.

Letters for shapes: B images, R regions of all images, r regions of one, P of them positive, K classes, C channels,
S pooled side.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from tldet.models.boxes import Sizes
from tldet.models.heads.base import Head
from tldet.models.pooling import as_floats
from tldet.models.postprocess import DetectionTensors
from tldet.models.two_stage.box import BoxBranch, RoISettings, find_in
from tldet.models.two_stage.loss import STAGE, TwoStageRaw, propose_and_loss, stage_loss
from tldet.models.two_stage.rpn import RPN, RPNSettings
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target


@HEADS.register_module()
class FasterRCNNHead(Head):
    """Proposals, pooled and classified.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K, background not counted.
        rpn: the first stage.
        roi: the second stage.
    """

    background_layers = ("box.cls_score",)  # of the class layers, whose last row is background

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
        self.rpn = RPN(in_channels, strides, rpn or RPNSettings())
        self.box = BoxBranch(in_channels, strides, num_classes, self.roi)
        boxes = () if self.roi.class_agnostic else ("box.bbox_pred",)
        self.class_layers = ("box.cls_score", *boxes)  # whose rows are classes

    def forward(self, features: Sequence[Tensor]) -> TwoStageRaw:
        """L x (B, C, H, W) to the proposals' raw outputs, and the features themselves."""
        return TwoStageRaw(self.rpn(features), as_floats(features[: self.roi.levels]))

    def loss(
        self, raw: TwoStageRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """The four losses, each divided by the number of anchors or regions drawn."""
        find = partial(find_in, self.box, raw.features, sizes=sizes)
        proposals, targets, losses = propose_and_loss(
            self.rpn, raw, targets, sizes, seed, find=find, branches=self.box, settings=self.roi
        )
        return {**losses, **stage_loss(self.box, raw.features, proposals, targets, seed, STAGE).losses}

    @torch.no_grad()
    def decode_tensors(self, raw: TwoStageRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        return find_in(self.box, raw.features, self.rpn.propose(raw.rpn, sizes, training=False), sizes)
