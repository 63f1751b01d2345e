"""Selection of detections by their scores."""

from __future__ import annotations

from dataclasses import replace

import torch

from tldet.runtime.scores import ScoreSettings
from tldet.structures.detections import Detections


def select_scores(found: Detections, settings: ScoreSettings, score: float | None) -> Detections:
    """Return the calibrated detections at or above a threshold.

    Args:
        found: detections of the model, on the CPU.
        settings: thresholds and temperature of the checkpoint.
        score: threshold of the calibrated scores; None for those of the checkpoint.
    """
    rows, scores = settings.select(found.scores.numpy(), found.labels.numpy(), score)
    return replace(found[torch.from_numpy(rows)], scores=torch.from_numpy(scores))
