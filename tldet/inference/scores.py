"""Score thresholds and temperature stored in a checkpoint (``tldet report --save-thresholds, --save-temperature``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tldet.errors import CheckpointError
from tldet.inference import SCORE
from tldet.structures.detections import Detections

_CLIP = 1e-6  # scores of 0 and 1 have no logit


@dataclass(frozen=True)
class ScoreSettings:
    """Selection of detections by score, and calibration of scores.

    Attributes:
        thresholds: score threshold of each class for uncalibrated scores; None for 0.3.
        temperature: divisor of the logits of the scores; None keeps the scores.
    """

    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None

    @classmethod
    def of(cls, stated: Mapping[str, Any] | None, class_names: Sequence[str], name: str) -> ScoreSettings:
        """Read the ``scores`` of a checkpoint's ``meta`` or of the metadata of an exported detector.

        Args:
            stated: the content; None or empty if nothing is stored.
            class_names: name of each label.
            name: name of the file in messages.

        Raises:
            CheckpointError: a value is malformed.
        """
        thresholds, temperature = (stated or {}).get("thresholds"), (stated or {}).get("temperature")
        if thresholds is not None:
            values = [thresholds.get(one) for one in class_names] if isinstance(thresholds, Mapping) else [None]
            if not all(isinstance(value, float) and 0 <= value <= 1 for value in values):
                raise CheckpointError(f"{name}: scores.thresholds must be a number from 0 to 1 for each class")
            thresholds = tuple(values)
        if temperature is not None and not (isinstance(temperature, float) and temperature > 0):
            raise CheckpointError(f"{name}: scores.temperature must be a number above 0, not {temperature!r}")
        return cls(thresholds, temperature)

    def select(self, found: Detections, score: float | None) -> Detections:
        """Return the detections at or above a score threshold, with calibrated scores.

        Args:
            found: detections of the model.
            score: threshold of the calibrated scores; None for the thresholds of the checkpoint.
        """
        if score is None:
            found = self._above_own(found)
        if self.temperature is not None:
            logits = torch.logit(found.scores.double(), eps=_CLIP) / self.temperature
            found = replace(found, scores=torch.sigmoid(logits).to(found.scores.dtype))
        return found if score is None else found.above(score)

    def _above_own(self, found: Detections) -> Detections:
        if self.thresholds is None:
            return found.above(SCORE)
        least = torch.tensor(self.thresholds, dtype=found.scores.dtype, device=found.scores.device)
        return found[found.scores >= least[found.labels]]

    def describe(self) -> str:
        """Return the thresholds for the log."""
        if self.thresholds is None:
            return f"{SCORE:g}"
        return f"{min(self.thresholds):.2f} to {max(self.thresholds):.2f} by class"
