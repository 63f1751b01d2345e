"""mmdet 3's two-stage detectors (Faster, Mask, Cascade, Cascade Mask R-CNN) in our key names.

Rows stay as they are: mmdet too has background as the last class row and (x, y, w, h) deltas class by class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

TWO_STAGE_RENAMES = (
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.lateral.\1."),
    (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.output.\1."),
    (r"^rpn_head\.rpn_conv\.", "head.rpn.convs.0."),
    (r"^rpn_head\.rpn_cls\.", "head.rpn.objectness."),
    (r"^rpn_head\.rpn_reg\.", "head.rpn.deltas."),
    (r"^roi_head\.bbox_head\.((?:\d+\.)?)shared_fcs\.", r"head.box.\1fcs."),
    (r"^roi_head\.bbox_head\.((?:\d+\.)?)fc_cls\.", r"head.box.\1cls_score."),
    (r"^roi_head\.bbox_head\.((?:\d+\.)?)fc_reg\.", r"head.box.\1bbox_pred."),
    (r"^roi_head\.mask_head\.((?:\d+\.)?)convs\.(\d+)\.conv\.", r"head.mask.\1convs.\2.0."),
    (r"^roi_head\.mask_head\.((?:\d+\.)?)upsample\.", r"head.mask.\1upsample."),
    (r"^roi_head\.mask_head\.((?:\d+\.)?)conv_logits\.", r"head.mask.\1mask_logits."),
)


def from_mmdet_two_stage(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of one of mmdet's two-stage R50-FPN detectors in our names; the backbone's are the same."""
    return {_rename(key): value for key, value in state.items()}


def _rename(key: str) -> str:
    for pattern, ours in TWO_STAGE_RENAMES:
        key, done = re.subn(pattern, ours, key)
        if done:
            return key
    return key
