"""Translation of mmdet's tensor names (3.3.0; 2.x has the same names).

The row order is the same as in tldet: background is the last class, and (x, y, w, h) deltas are grouped by class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RENAMES = (
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.lateral.\1."),
    (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.output.\1."),
    (r"^bbox_head\.cls_convs\.(\d+)\.conv\.", r"head.cls_tower.\1.0."),
    (r"^bbox_head\.cls_convs\.(\d+)\.gn\.", r"head.cls_tower.\1.1."),
    (r"^bbox_head\.reg_convs\.(\d+)\.conv\.", r"head.box_tower.\1.0."),
    (r"^bbox_head\.reg_convs\.(\d+)\.gn\.", r"head.box_tower.\1.1."),
    (r"^bbox_head\.(?:retina_cls|conv_cls|atss_cls|gfl_cls)\.", "head.cls_score."),
    (r"^bbox_head\.(?:retina_reg|conv_reg|atss_reg|gfl_reg)\.", "head.bbox_pred."),
    (r"^bbox_head\.(?:conv|atss)_centerness\.", "head.centerness."),
    (r"^bbox_head\.scales\.(\d+)\.scale$", r"head.scales.\1"),
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
_CONSTANTS = re.compile(r"^bbox_head\.integral\.project$")  # not trainable
OUTPUT = re.compile(r"^neck\.output\.(\d+)\.")


def from_mmdet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of an R50-FPN detector of mmdet to tldet's names."""
    laterals = len({key.split(".")[2] for key in state if key.startswith("neck.lateral_convs.")})
    return {_rename(key, laterals): value for key, value in state.items() if not _CONSTANTS.match(key)}


def _rename(key: str, laterals: int) -> str:
    for pattern, name in _RENAMES:
        key, done = re.subn(pattern, name, key)
        if done:
            break
    output = OUTPUT.match(key)
    if output and int(output[1]) >= laterals:  # mmdet numbers the convolutions of extra levels consecutively
        return f"neck.p{6 + int(output[1]) - laterals}.{key[output.end() :]}"
    return key
