"""A detector as a checkpoint left it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.errors import CheckpointError
from tldet.models.detector import Detector, build_detector


def restore(path: str | Path) -> tuple[Detector, dict[str, Any]]:
    """The detector of a checkpoint, in eval mode with its EMA weights where it has them, and the checkpoint.

    Raises:
        CheckpointError: the file cannot be read, or its weights do not fit its own config.
    """
    state = checkpoint.load(path)
    if state["meta"].get("task") == "classification":
        raise CheckpointError(
            f"{path}: is a classifier of `tldet pretrain`, no detector: fine-tune one with "
            f"--cfg-options model.backbone.weights={path}"
        )
    try:
        detector = build_detector(state["config"]["model"], state["meta"]["class_names"])
        detector.load_state_dict(state.get("ema") or state["model"])
    except (RuntimeError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: its weights do not fit the model it describes: {why}") from None
    return detector.eval(), state
