"""Faster R-CNN on a feature pyramid (Ren et al. 2015; Lin et al. 2017, section 4.2).

The RPN proposes regions. Each one is pooled from the level that fits its size; the box branch predicts its class and
corrects its box. Proposals with an IoU of at least ``pos_iou_thr`` with an object are positive, the others are
background; a fixed number is sampled from each image. On an image that is not annotated for every class, confident
detections of the other classes are ignored, not background, in both stages.

Shapes: B images, L levels, K classes, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tldet.models.boxes import Sizes
from tldet.models.heads.base import Head
from tldet.models.pooling import as_floats
from tldet.models.postprocess import DetectionTensors
from tldet.models.two_stage.box import BoxBranch, RoISettings, detect_in_regions
from tldet.models.two_stage.loss import TwoStageRaw, two_stage_loss
from tldet.models.two_stage.rpn import RPN, RPNSettings
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target


@HEADS.register_module()
class FasterRCNNHead(Head):
    """Two-stage head with an RPN and a box branch.

    Args:
        in_channels: channels of the pyramid.
        strides: strides of the pyramid, finest first.
        num_classes: number of classes K, without background.
        rpn: settings of the first stage.
        roi: settings of the second stage.
    """

    background_layers = ("box.cls_score",)
    softmax = True

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
        self.class_layers = ("box.cls_score", *boxes)

    def forward(self, features: Sequence[Tensor]) -> TwoStageRaw:
        """Compute the raw outputs of the RPN of L x (B, C, H, W) features; the features are kept for pooling."""
        return TwoStageRaw(self.rpn(features), as_floats(features[: self.roi.levels]))

    def loss(
        self, raw: TwoStageRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of both stages, each divided by its number of sampled anchors or regions."""
        return two_stage_loss(self.rpn, self.box, raw, targets, sizes, seed).losses

    @torch.no_grad()
    def decode_tensors(self, raw: TwoStageRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        return detect_in_regions(self.box, raw.features, self.rpn.propose(raw.rpn, sizes, training=False), sizes)
