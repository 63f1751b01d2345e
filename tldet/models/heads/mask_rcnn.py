"""Mask R-CNN (He et al. 2017): Faster R-CNN with a third branch that says which pixels of a box are the object.

The method in order: proposals and boxes as in Faster R-CNN; in training each positive region is pooled on a finer grid
and a small convolutional network draws one mask a class, of which only that of the true class learns, pixel by pixel;
in testing the final boxes are pooled and the mask of the class found is kept as a patch on the box.

Letters for shapes: B images, R regions of all images, P of them positive, K classes, C channels, S pooled side,
M = 2 S side of a mask.
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
from tldet.models.two_stage.mask import MaskBranch, MaskSettings, mask_loss, with_masks
from tldet.models.two_stage.rpn import RPN, RPNSettings
from tldet.registry import HEADS
from tldet.structures.image import Size
from tldet.structures.target import Target


@HEADS.register_module()
class MaskRCNNHead(Head):
    """Proposals, pooled, classified and drawn.

    Args:
        in_channels: channels of the pyramid.
        strides: its strides, finest first.
        num_classes: K, background not counted.
        mask: the mask branch.
        rpn: the first stage.
        roi: the box branch.
    """

    predicts_masks = True
    background_layers = ("box.cls_score",)  # of the class layers, whose last row is background

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
        self.class_layers = ("box.cls_score", *boxes, *masks)  # whose rows are classes

    def forward(self, features: Sequence[Tensor]) -> TwoStageRaw:
        """L x (B, C, H, W) to the proposals' raw outputs, and the features themselves."""
        return TwoStageRaw(self.rpn(features), as_floats(features[: self.roi.levels]))

    def loss(
        self, raw: TwoStageRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Faster R-CNN's four losses and ``loss_mask``, the mean over the cells of all positive regions."""
        find = partial(find_in, self.box, raw.features, sizes=sizes)
        proposals, targets, losses = propose_and_loss(
            self.rpn, raw, targets, sizes, seed, find=find, branches=self.box, settings=self.roi
        )
        boxes = stage_loss(self.box, raw.features, proposals, targets, seed, STAGE)
        masks = mask_loss(self.mask, raw.features, boxes.drawn, targets)
        return {**losses, **boxes.losses, "loss_mask": masks}

    @torch.no_grad()
    def decode_tensors(self, raw: TwoStageRaw, sizes: Sizes) -> DetectionTensors:
        """Compute the detections of each image in pixels of the padded batch, best first, each with its mask."""
        found = find_in(self.box, raw.features, self.rpn.propose(raw.rpn, sizes, training=False), sizes)
        return with_masks([self.mask], raw.features, found)
