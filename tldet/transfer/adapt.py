"""A shipped config's ``model`` section fitted to a foreign checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tldet.errors import CheckpointError
from tldet.transfer.known import Layout
from tldet.transfer.mmdet_config import Policy, anchor_sizes

P6 = {True: "p6p7_p5", False: "p6p7_c5"}  # whether the first extra level is made from the pyramid


def adapted(
    section: Mapping[str, Any], layout: Layout, translated: Mapping[str, Tensor], policy: Policy
) -> dict[str, Any]:
    """The section with the checkpoint's classes, backbone, towers, extra levels, normalisation and anchors.

    Args:
        section: a shipped config's ``model``.
        layout: what the checkpoint's keys and shapes tell.
        translated: its tensors in our names.
        policy: what its own config says.

    Raises:
        CheckpointError: its anchors are of a kind this model does not have.
    """
    model: dict[str, Any] = copy.deepcopy(dict(section))
    backbone, neck, head = model["backbone"], model["neck"], model["head"]
    head["num_classes"] = layout.classes or head["num_classes"]
    backbone["name"] = layout.backbone or backbone["name"]
    if "stacked_convs" in head and layout.convs:
        head["stacked_convs"] = layout.convs
    p6 = translated.get("neck.p6.weight")
    if p6 is not None and neck.get("extra") in P6.values():
        neck["extra"] = P6[p6.shape[1:2] == p6.shape[:1]]
    if policy.preprocess:
        model["preprocess"] = policy.preprocess
    if policy.strided_conv and policy.strided_conv != backbone.get("strided_conv", "3x3"):
        backbone["strided_conv"] = policy.strided_conv
    if policy.deltas and "roi" in head:
        head["roi"]["weights"] = policy.deltas
    if policy.anchors:
        _set_anchors(head, policy.anchors)
    return model


def _set_anchors(head: dict[str, Any], anchors: Mapping[str, Any]) -> None:
    """Anchors stand in the RPN's settings or in the head's: sizes a level, or one scale of a square anchor."""
    settings = head.get("rpn") or head.get("settings") or {}
    found = anchor_sizes(anchors)
    if found is None and ("sizes" in settings or "scale" in settings):
        raise CheckpointError(f"its anchors ({dict(anchors)}) are of a kind that {head['type']} does not have")
    if found is not None and "sizes" in settings:
        same = all(abs(a - b) < 0.01 for ours, theirs in zip(settings["sizes"], found[0], strict=False)
                   for a, b in zip(ours, theirs, strict=False))  # fmt: skip
        settings["sizes"] = settings["sizes"] if same and _shape(settings["sizes"]) == _shape(found[0]) else found[0]
        settings["ratios"] = found[1]
    elif found is not None and "scale" in settings:
        if found[1] != [1.0] or len(found[0][0]) != 1:
            raise CheckpointError(f"its anchors ({dict(anchors)}) are several a cell; {head['type']} has one")
        settings["scale"] = found[0][0][0] / anchors["strides"][0]


def _shape(sizes: list[list[float]]) -> list[int]:
    return [len(level) for level in sizes]
