"""torchvision's detection models in our key names.

Background is torchvision's first class row and our last one; its box rows for background are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

RENAMES = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.inner_blocks\.(\d+)\.(?:0\.)?", r"neck.lateral.\1."),
    (r"^backbone\.fpn\.layer_blocks\.(\d+)\.(?:0\.)?", r"neck.output.\1."),
    (r"^backbone\.fpn\.extra_blocks\.", "neck."),
    (r"^rpn\.head\.conv\.(?:0\.0\.)?", "head.rpn.conv."),
    (r"^rpn\.head\.cls_logits\.", "head.rpn.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "head.rpn.deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "head.fc2."),
    (r"^roi_heads\.box_predictor\.", "head."),
    (r"^head\.classification_head\.cls_logits\.", "head.cls_score."),
    (r"^head\.regression_head\.bbox_reg\.", "head.bbox_pred."),
)
TOWER = re.compile(r"^head\.(classification|regression)_head\.conv\.(\d+)\.(0\.)?(weight|bias)$")
EPS = 1e-5  # of our BatchNorm


def from_torchvision(state: Mapping[str, Tensor], *, norm_eps: float = EPS) -> dict[str, Tensor]:
    """A state dict of torchvision's Faster R-CNN or RetinaNet in our names and row order.

    Args:
        state: names to tensors, as torchvision has them now or had them before version 0.13.
        norm_eps: what its norms add to the variance; the variances are shifted so that ours give the same.
    """
    renamed = {_rename(key): value for key, value in state.items()}
    two_stage = any(key.startswith("roi_heads.") for key in state)
    ordered = {key: _reorder(key, value) if two_stage else value for key, value in renamed.items()}
    shift = norm_eps - EPS
    return {key: v + shift if shift and key.endswith("running_var") else v for key, v in ordered.items()}


def _rename(key: str) -> str:
    tower = TOWER.match(key)
    if tower:
        name = "cls_tower" if tower[1] == "classification" else "box_tower"
        number = 2 * int(tower[2]) if tower[3] else int(tower[2])  # the older names count the ReLUs between
        return f"head.{name}.{number}.{tower[4]}"
    for pattern, ours in RENAMES:
        key, done = re.subn(pattern, ours, key)
        if done:
            return key
    return key


def _reorder(key: str, value: Tensor) -> Tensor:
    if key.startswith("head.cls_score."):
        return torch.cat([value[1:], value[:1]])
    return value[4:] if key.startswith("head.bbox_pred.") else value
