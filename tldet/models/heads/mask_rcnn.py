"""Mask R-CNN (He et al. 2017): Faster R-CNN with a third branch that predicts the mask of each object.

Proposals and boxes are those of Faster R-CNN. In training, the positive regions are pooled on a finer grid, and a small
convolutional network predicts one mask per class; only the mask of the true class has a loss. In prediction, the final
boxes are pooled, and the mask of the predicted class is returned as a patch on the box.

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
from tldet.models.two_stage.mask import MaskBranch, MaskSettings, mask_loss, with_masks
from tldet.models.two_stage.rpn import RPN, RPNSettings
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target


@HEADS.register_module()
class MaskRCNNHead(Head):
    """Two-stage head with an RPN, a box branch and a mask branch.

    Args:
        in_channels: channels of the pyramid.
        strides: strides of the pyramid, finest first.
        num_classes: number of classes K, without background.
        mask: settings of the mask branch.
        rpn: settings of the first stage.
        roi: settings of the box branch.
    """

    predicts_masks = True
    background_layers = ("box.cls_score",)
    softmax = True

    def __init__(
        self,
        in_channels: int,
        strides: Sequence[int],
        num_classes: int = 80,
        *,
        mask: MaskSettings,
        rpn: RPNSettings | None = None,
        roi: RoISettings | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.roi = roi or RoISettings()
        self.rpn = RPN(in_channels, strides, rpn or RPNSettings())
        self.box = BoxBranch(in_channels, strides, num_classes, self.roi)
        self.mask = MaskBranch(in_channels, strides, num_classes, self.roi, mask)
        self.mask_threshold, self.mask_paste = mask.threshold, mask.paste
        boxes = () if self.roi.class_agnostic else ("box.bbox_pred",)
        masks = () if mask.class_agnostic else ("mask.mask_logits",)
        self.class_layers = ("box.cls_score", *boxes, *masks)

    def forward(self, features: Sequence[Tensor]) -> TwoStageRaw:
        """Compute the raw outputs of the RPN of L x (B, C, H, W) features; the features are kept for pooling."""
        return TwoStageRaw(self.rpn(features), as_floats(features[: self.roi.levels]))

    def loss(
        self, raw: TwoStageRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of Faster R-CNN and ``loss_mask``, the mean over the mask cells of all positives."""
        boxes = two_stage_loss(self.rpn, self.box, raw, targets, sizes, seed)
        return {**boxes.losses, "loss_mask": mask_loss(self.mask, raw.features, boxes.regions, targets)}

    @torch.no_grad()
    def decode_tensors(self, raw: TwoStageRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first, with masks."""
        found = detect_in_regions(self.box, raw.features, self.rpn.propose(raw.rpn, sizes, training=False), sizes)
        return with_masks([self.mask], raw.features, found)
