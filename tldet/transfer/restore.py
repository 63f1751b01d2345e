"""A detector as a checkpoint left it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.errors import CheckpointError
from tldet.models.detector import Detector, build_detector
from tldet.models.hollow import filled
from tldet.transfer.provenance import refuse_classifier


def restore(path: str | Path) -> tuple[Detector, dict[str, Any]]:
    """The detector of a checkpoint, in eval mode with its EMA weights where it has them, and the checkpoint.

    Both hold the same tensors.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not fit its own config.
    """
    state = checkpoint.load(path)
    refuse_classifier(path, state)
    try:
        model, names = state["config"]["model"], state["meta"]["class_names"]
        detector = filled(lambda: build_detector(model, names), state.get("ema") or state["model"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: its weights do not fit the model it describes: {why}") from None
    return detector.eval(), state
