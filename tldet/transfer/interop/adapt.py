"""Adaptation of the ``model`` section of a shipped config to a checkpoint of another toolkit."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from tldet.config import build_settings
from tldet.errors import CheckpointError
from tldet.models.detector import Preprocess
from tldet.transfer.interop.known import KeyLayout
from tldet.transfer.interop.mmdet_config import MmdetSettings, anchor_sizes

SINGLE_CODERS = {"RetinaNetHead", "ATSSHead"}  # one-stage heads whose boxes are deltas
P6 = {True: "p6p7_p5", False: "p6p7_c5"}  # True: the first extra level is computed from the pyramid


def adapted(
    section: Mapping[str, Any], layout: KeyLayout, translated: Mapping[str, Tensor], settings: MmdetSettings
) -> dict[str, Any]:
    """Return the section with classes, backbone, towers, extra levels, normalization and anchors of the checkpoint.

    Args:
        section: ``model`` section of a shipped config.
        layout: layout recognized from the keys and shapes of the checkpoint.
        translated: tensors of the checkpoint with tldet's names.
        settings: settings from the config of the checkpoint.

    Raises:
        CheckpointError: the model does not support the anchors of the checkpoint.
    """
    model: dict[str, Any] = copy.deepcopy(dict(section))
    backbone, neck, head = model["backbone"], model["neck"], model["head"]
    if layout.dialect == "torchvision" and "mask" in head:
        head["mask"].update(targets="torchvision", paste="resized")
    head["num_classes"] = layout.classes or head["num_classes"]
    backbone["name"] = layout.backbone or backbone["name"]
    if "stacked_convs" in head and layout.convs:
        head["stacked_convs"] = layout.convs
    p6 = translated.get("neck.p6.weight")
    if p6 is not None and neck.get("extra") in P6.values():
        neck["extra"] = P6[p6.shape[1:2] == p6.shape[:1]]
    set_input(model, settings.preprocess, settings.strided_conv)
    if settings.deltas and ("roi" in head or head["type"] in SINGLE_CODERS):
        head["roi" if "roi" in head else "settings"]["weights"] = settings.deltas
    if settings.anchors:
        _set_anchors(head, settings.anchors)
    return model


def set_input(model: dict[str, Any], preprocess: Mapping[str, Any] | None, strided_conv: str | None) -> list[str]:
    """Set preprocessing and strided convolutions of a ``model`` section to those of weights; None changes nothing.

    Returns:
        A line for each change.
    """
    lines = []
    if preprocess and not same_input(preprocess, model.get("preprocess", {})):
        lines.append(f"model.preprocess {model.get('preprocess', {})} -> {dict(preprocess)}")
        model["preprocess"] = dict(preprocess)
    if strided_conv and strided_conv != model["backbone"].get("strided_conv", "3x3"):
        lines.append(f"model.backbone.strided_conv -> {strided_conv}")
        model["backbone"]["strided_conv"] = strided_conv
    return lines


def same_input(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if two ``preprocess`` sections are equal up to the rounding of published values."""
    a, b = build_settings(Preprocess, one), build_settings(Preprocess, other)
    pairs = zip((*a.mean, *a.std), (*b.mean, *b.std), strict=True)
    return a.bgr == b.bgr and all(math.isclose(x, y, rel_tol=1e-4) for x, y in pairs)


def _set_anchors(head: dict[str, Any], anchors: Mapping[str, Any]) -> None:
    """Set the anchors of the RPN or the head: sizes per level, or the scale of a square anchor.

    Raises:
        CheckpointError: the model does not support these anchors.
    """
    settings = head.get("rpn") or head.get("settings") or {}
    found, strides = anchor_sizes(anchors), anchors.get("strides")
    if "octave_base_scale" in settings and not (
        isinstance(strides, (list, tuple)) and strides and _positive(strides[0])
    ):
        found = None  # the scale is relative to the stride
    if found is None and ("sizes" in settings or "octave_base_scale" in settings):
        raise CheckpointError(f"anchors of the checkpoint ({dict(anchors)}) are not supported by {head['type']}")
    if found is not None and "sizes" in settings:
        same = all(abs(a - b) < 0.01 for level, other in zip(settings["sizes"], found[0], strict=False)
                   for a, b in zip(level, other, strict=False))  # fmt: skip
        settings["sizes"] = settings["sizes"] if same and _shape(settings["sizes"]) == _shape(found[0]) else found[0]
        settings["ratios"] = found[1]
    elif found is not None and "octave_base_scale" in settings:
        if found[1] != [1.0] or len(found[0][0]) != 1:
            raise CheckpointError(
                f"{head['type']} has one anchor per location, the checkpoint several ({dict(anchors)})"
            )
        settings["octave_base_scale"] = found[0][0][0] / cast(Any, strides)[0]


def _positive(number: Any) -> bool:
    return type(number) in (int, float) and number > 0


def _shape(sizes: list[list[float]]) -> list[int]:
    return [len(level) for level in sizes]
