"""Restoring of a detector from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.components import require_components
from tldet.errors import CheckpointError
from tldet.models.detector import Detector, build_detector
from tldet.models.meta_tensors import filled
from tldet.transfer.provenance import check_meta, refuse_classifier


def restore(path: str | Path) -> tuple[Detector, dict[str, Any]]:
    """Build the detector of a checkpoint, with its EMA weights if there are any, in eval mode.

    Returns:
        The detector and the contents of the checkpoint, which share their tensors.

    Raises:
        CheckpointError: the file cannot be read, its ``meta`` is malformed, or its weights do not fit its own config.
    """
    state = checkpoint.load_checkpoint(path)
    refuse_classifier(path, state)
    check_meta(path, state)
    require_components(path, state, "model")
    try:
        model, names = state["config"]["model"], state["meta"]["class_names"]
        detector = filled(lambda: build_detector(model, names), state.get("ema") or state["model"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: its weights do not fit the model it describes: {reason}") from None
    return detector.eval(), state
