"""Input size and anchors that objects are checked against."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.data.checks.statistics import InputSettings
from tldet.models.boxes import base_anchors
from tldet.transfer.provenance import checkpoint_outline
from tldet.workflows.check.request import CheckRequest
from tldet.workflows.training.recipes import load_recipe
from tldet.workflows.training.request import DEFAULT_MODEL


def input_settings(request: CheckRequest) -> InputSettings:
    """Return the input size and anchors of the default recipe, or those of a checkpoint."""
    if request.model is None:
        head = load_recipe(DEFAULT_MODEL)["model"]["head"]
        return InputSettings(request.input_size, 2 * request.input_size, anchor_shapes(head))
    outline = checkpoint_outline(Path(request.model))
    size = outline["meta"]["input"]
    return InputSettings(size["short"], size["long"], anchor_shapes(outline["config"]["model"]["head"]))


def anchor_shapes(head: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return (A, 2) width and height of the anchors of a head; empty for a head without anchors."""
    section = head.get("rpn") or head
    sizes, ratios = section.get("sizes"), section.get("ratios")
    if not sizes or not ratios:
        return np.zeros((0, 2))
    shapes = [base_anchors(level, ratios, rounding=False).numpy() for level in sizes]
    boxes = np.concatenate(shapes).astype(np.float64)
    return np.asarray(boxes[:, 2:] - boxes[:, :2])
