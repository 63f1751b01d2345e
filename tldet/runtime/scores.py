"""Score thresholds and temperature stored in a checkpoint (``tldet report --save-thresholds, --save-temperature``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import SCORE
from .errors import CheckpointError

_CLIP = 1e-6  # scores of 0 and 1 have no logit


@dataclass(frozen=True)
class ScoreSettings:
    """Selection of detections by score, and calibration of scores.

    Attributes:
        thresholds: score threshold of each label, before the temperature is applied; None for 0.3.
        temperature: divisor of the logits of the scores; None keeps the scores.
    """

    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None

    @classmethod
    def of(cls, stated: Mapping[str, Any] | None, class_names: Sequence[str], name: str) -> ScoreSettings:
        """Read the ``scores`` of a checkpoint's ``meta`` or of the metadata of an exported detector.

        Args:
            stated: the content of ``scores``; None or empty if there is none.
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
        if temperature is not None and not (isinstance(temperature, float) and 0 < temperature < np.inf):
            raise CheckpointError(f"{name}: scores.temperature must be a number above 0, not {temperature!r}")
        return cls(thresholds, temperature)

    def select(
        self, scores: NDArray[Any], labels: NDArray[np.int64], score: float | None
    ) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Select the detections at or above a threshold.

        Args:
            scores: (N,) scores of the model.
            labels: (N,) labels.
            score: threshold of the calibrated scores; None: the stored thresholds of the uncalibrated scores, else 0.3.

        Returns:
            Rows of the selected detections, and their calibrated scores.
        """
        rows = np.arange(len(scores))
        if score is None:
            own = SCORE if self.thresholds is None else np.asarray(self.thresholds, scores.dtype)[labels]
            rows = np.flatnonzero(scores >= own)
        kept = scores[rows]
        if self.temperature is not None:
            probabilities = kept.astype(np.float64).clip(_CLIP, 1 - _CLIP)
            logits = np.log(probabilities / (1 - probabilities)) / self.temperature
            kept = (1 / (1 + np.exp(-logits))).astype(scores.dtype)
        above = slice(None) if score is None else kept >= score
        return rows[above], kept[above]

    def describe(self) -> str:
        """Return the thresholds for the log."""
        if self.thresholds is None:
            return f"{SCORE:g}"
        return f"{min(self.thresholds):.2f} to {max(self.thresholds):.2f} by class"
