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
    (r"^backbone\.fpn\.inner_blocks\.(\d+)\.0\.", r"neck.lateral.\1."),
    (r"^backbone\.fpn\.layer_blocks\.(\d+)\.0\.", r"neck.output.\1."),
    (r"^backbone\.fpn\.extra_blocks\.", "neck."),
    (r"^rpn\.head\.conv\.0\.0\.", "head.rpn.conv."),
    (r"^rpn\.head\.cls_logits\.", "head.rpn.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "head.rpn.deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "head.fc1."),
    (r"^roi_heads\.box_head\.fc7\.", "head.fc2."),
    (r"^roi_heads\.box_predictor\.", "head."),
    (r"^head\.classification_head\.cls_logits\.", "head.cls_score."),
    (r"^head\.regression_head\.bbox_reg\.", "head.bbox_pred."),
    (r"^head\.regression_head\.bbox_ctrness\.", "head.centerness."),
    (r"^head\.classification_head\.conv\.", "head.cls_tower."),
    (r"^head\.regression_head\.conv\.", "head.box_tower."),
)
FLAT_TOWER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)$")


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's Faster R-CNN, RetinaNet or FCOS in our names and row order."""
    layers = 3 if any("bbox_ctrness" in key for key in state) else 2  # a block, where towers number them through
    renamed = {_rename(_nest(key, layers)): value for key, value in state.items()}
    two_stage = any(key.startswith("roi_heads.") for key in state)
    return {key: _reorder(key, value) if two_stage else value for key, value in renamed.items()}


def _nest(key: str, layers: int) -> str:
    """A tower's layer that is numbered through (FCOS, the published RetinaNet) by its block and its place there."""
    flat = FLAT_TOWER.match(key)
    return key if flat is None else f"{flat[1]}.{int(flat[2]) // layers}.{int(flat[2]) % layers}.{flat[3]}"


def _rename(key: str) -> str:
    for pattern, ours in RENAMES:
        key, done = re.subn(pattern, ours, key)
        if done:
            return key
    return key


def _reorder(key: str, value: Tensor) -> Tensor:
    if key.startswith("head.cls_score."):
        return torch.cat([value[1:], value[:1]])
    return value[4:] if key.startswith("head.bbox_pred.") else value
