"""mmdet's two-stage detectors in our key names; background is the last class row in both."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

TWO_STAGE_RENAMES = (
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.lateral.\1."),
    (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.output.\1."),
    (r"^rpn_head\.rpn_conv\.", "head.rpn.conv."),
    (r"^rpn_head\.rpn_cls\.", "head.rpn.objectness."),
    (r"^rpn_head\.rpn_reg\.", "head.rpn.deltas."),
    (r"^roi_head\.bbox_head\.shared_fcs\.0\.", "head.fc1."),
    (r"^roi_head\.bbox_head\.shared_fcs\.1\.", "head.fc2."),
    (r"^roi_head\.bbox_head\.fc_cls\.", "head.cls_score."),
    (r"^roi_head\.bbox_head\.fc_reg\.", "head.bbox_pred."),
)


def from_mmdet_two_stage(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of mmdet's Faster R-CNN in our names."""
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    for pattern, ours in TWO_STAGE_RENAMES:
        key = re.sub(pattern, ours, key)
    return key
