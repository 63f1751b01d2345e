"""Prediction in ``map_batches`` of Ray Data, on batches of columns; this module does not import Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.inference.loading import load
from tldet.inference.predictor import OnError, Predictor
from tldet.runtime import SCORE
from tldet.structures.detections import Detections

Columns = Mapping[str, NDArray[Any]]


class RayPredictor:
    """Callable class for ``map_batches`` that predicts on a column of images.

    Ray creates one instance per worker, which loads the detector once::

        images.map_batches(RayPredictor, fn_constructor_args=["best.pt"], batch_size=16, concurrency=2)

    The output has the columns of the input, without ``column`` unless it contains paths, and for each row ``boxes``
    (n, 4) float32 xyxy in pixels, ``scores`` (n,) float32, ``labels`` (n,) int64, ``names`` (n,) and bool ``readable``.

    Args:
        detector: path of a checkpoint or an exported detector that every machine can read, or a predictor.
        column: column of paths, encoded images or (H, W, 3) uint8 RGB arrays.
        score: score threshold.
        batch: largest number of images per batch of the network.
        on_error: ``raise`` stops at an image that cannot be read; with ``skip`` its row has no detections, and
            ``readable`` is False.
        options: options of :func:`~tldet.inference.loading.load`.
    """

    def __init__(
        self,
        detector: str | PathLike[str] | Predictor,
        column: str = "image",
        score: float = SCORE,
        batch: int = 4,
        on_error: OnError = "raise",
        **options: Any,
    ) -> None:
        self.predictor = detector if isinstance(detector, Predictor) else load(str(detector), **options)
        self.column, self.score, self.batch, self.on_error = column, score, batch, on_error

    def __call__(self, columns: Columns) -> dict[str, NDArray[Any]]:
        """Predict on the images of a batch.

        Raises:
            KeyError: there is no such column.
            DataError: an image cannot be read, with ``on_error="raise"``.
        """
        images = list(columns[self.column])
        found = self.predictor.predict(images, self.score, self.batch, on_error=self.on_error)
        named = all(isinstance(one, (str, PathLike)) for one in images)
        kept = {name: values for name, values in columns.items() if named or name != self.column}
        rows = [Detections.empty() if one is None else one for one in found]
        return {
            **kept,
            "boxes": _ragged(rows, lambda one: one.boxes.numpy().astype(np.float32)),
            "scores": _ragged(rows, lambda one: one.scores.numpy().astype(np.float32)),
            "labels": _ragged(rows, lambda one: one.labels.numpy()),
            "names": _ragged(rows, Detections.names),
            "readable": np.array([one is not None for one in found]),
        }


def _ragged(rows: Sequence[Detections], value: Callable[[Detections], Any]) -> NDArray[Any]:
    """Return an object array with one value per row."""
    column = np.empty(len(rows), object)
    for number, row in enumerate(rows):
        column[number] = value(row)
    return column
