"""Translation of torchvision's tensor names.

Background is the first class in torchvision and the last one in tldet; box and mask rows of background are dropped.
Names of older published files are supported too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

EPS = 1e-5  # of BatchNorm in tldet
_RENAMES = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.extra_blocks\.", "neck."),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"head.rpn.convs.0.\1"),
    (r"^rpn\.head\.conv\.(\d+)\.0\.", r"head.rpn.convs.\1."),
    (r"^rpn\.head\.cls_logits\.", "head.rpn.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "head.rpn.deltas."),
    (r"^roi_heads\.box_head\.fc6\.", "head.box.fcs.0."),
    (r"^roi_heads\.box_head\.fc7\.", "head.box.fcs.1."),
    (r"^roi_heads\.box_head\.(\d+)\.([01])\.", r"head.box.convs.\1.\2."),
    (r"^roi_heads\.box_head\.\d+\.(weight|bias)$", r"head.box.fcs.0.\1"),
    (r"^roi_heads\.box_predictor\.", "head.box."),
    (r"^roi_heads\.mask_head\.(\d+)\.([01])\.", r"head.mask.convs.\1.\2."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "head.mask.upsample."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "head.mask.mask_logits."),
    (r"^head\.classification_head\.cls_logits\.", "head.cls_score."),
    (r"^head\.regression_head\.bbox_reg\.", "head.bbox_pred."),
    (r"^head\.regression_head\.bbox_ctrness\.", "head.centerness."),
    (r"^head\.classification_head\.conv\.", "head.cls_tower."),
    (r"^head\.regression_head\.conv\.", "head.box_tower."),
)
FLAT_TOWER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)$")
_FPN = re.compile(r"^backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(?:([01])\.)?(\w+)$")
OLD_MASK = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d+)\.(.+)")


def from_torchvision(state: Mapping[str, Tensor], *, norm_eps: float = EPS) -> dict[str, Tensor]:
    """Translate a state dict of Faster R-CNN, Mask R-CNN, RetinaNet or FCOS to tldet's names and row order.

    Args:
        state: tensors by name.
        norm_eps: eps of its norms: 0 for the ``COCO_V1`` weights of the first models (such as
            ``fasterrcnn_resnet50_fpn``), whose builders overwrite it. Variances are shifted so that norms with tldet's
            eps have the same outputs.
    """
    layers = 3 if any("bbox_ctrness" in key for key in state) else 2  # per block of towers with consecutive numbers
    renamed = {_rename(_nest(key, layers), state): value for key, value in state.items()}
    two_stage = any(key.startswith("roi_heads.") for key in state)
    ordered = {key: _reorder(key, value) if two_stage else value for key, value in renamed.items()}
    shift = norm_eps - EPS
    return {key: v + shift if shift and key.endswith("running_var") else v for key, v in ordered.items()}


def _nest(key: str, layers: int) -> str:
    """Number a layer of a tower by block and index; FCOS and published RetinaNets number layers consecutively."""
    flat = FLAT_TOWER.match(key)
    return key if flat is None else f"{flat[1]}.{int(flat[2]) // layers}.{int(flat[2]) % layers}.{flat[3]}"


def _rename(key: str, state: Mapping[str, Tensor]) -> str:
    if level := _FPN.match(key):
        normed = "backbone.fpn.inner_blocks.0.1.weight" in state
        inner = f"{level[3]}." if normed else ""
        return f"neck.{'lateral' if level[1] == 'inner' else 'output'}.{level[2]}.{inner}{level[4]}"
    if old := OLD_MASK.match(key):
        return f"head.mask.convs.{int(old[1]) - 1}.0.{old[2]}"
    for pattern, name in _RENAMES:
        key, done = re.subn(pattern, name, key)
        if done:
            return key
    return key


def _reorder(key: str, value: Tensor) -> Tensor:
    if key.startswith("head.box.cls_score."):
        return torch.cat([value[1:], value[:1]])
    if key.startswith("head.mask.mask_logits."):
        return value[1:]
    return value[4:] if key.startswith("head.box.bbox_pred.") else value
