"""Our detectors as ``tldet predict`` runs them, in processes that import nothing else; see :class:`.child.Served`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from tldet.engine.memory import give_back_memory, keep_freed_memory
from tldet.inference.predictor import load


def predicting(checkpoint: str, precision: str, inputs: str) -> Callable[[], object]:
    """Prediction on the pictures of a file."""
    keep_freed_memory()
    predictor = load(checkpoint, "cpu", precision)
    give_back_memory()
    pictures = list(torch.load(inputs, weights_only=True)["pictures"])
    return lambda: predictor.predict(pictures, 0.0, len(pictures))
