"""Images for the verification of an exported file, and for calibration."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from tldet.data.eval_batches import eval_batches
from tldet.data.formats.source import SourceOptions
from tldet.data.loader import collate
from tldet.engine.precision import Precision
from tldet.errors import DataError
from tldet.inference.predictor import Predictor
from tldet.inference.sources import find_sources
from tldet.models.detector import Detector
from tldet.runtime.images import padded_size
from tldet.structures.batch import Batch
from tldet.workflows.evaluation_data import EvaluationData, evaluation_dataset, evaluation_on
from tldet.workflows.export.calibration import CalibrationImages
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.training.datasets import AnyDataset

COMPARED = 16  # number of images whose detections are compared
_WITHOUT = "use --data or --images, or --no-verify"


class ExportData:
    """A checkpoint, and the images for calibration and verification."""

    def __init__(
        self,
        detector: Detector,
        state: dict[str, Any],
        request: ExportRequest,
    ) -> None:
        self.checkpoint, self.detector, self.state = Path(request.checkpoint), detector, state
        data, images, verify = request.data, request.images, request.verify and not request.raw
        self.bounds: dict[str, Any] = state["meta"]["input"]
        self.calibration = CalibrationImages(state, request) if request.precision == "int8" else None
        self.verify, self.dataset = verify, cast(Any, None)
        self.files: list[Path] = []
        if verify and images is not None and data is None and request.split is None:
            self.files = [source.path for source in find_sources([str(images)])[0] if source.kind == "image"][:COMPARED]
            if not self.files:
                raise DataError(f"{images}: contains no images to verify the export with")
        elif verify:
            self.dataset = self._dataset(request)

    def _dataset(self, request: ExportRequest) -> AnyDataset:
        source = SourceOptions(request.data_format, request.voc_boxes or "auto")
        given = EvaluationData(request.data, request.images, request.split, source, without=_WITHOUT)
        return evaluation_dataset(given.section(self.checkpoint, self.state), self.state)

    def batches(self) -> Iterator[Batch]:
        """Yield the images whose detections are compared."""
        if self.dataset is None:
            predictor = self._predictor()
            for path in self.files:
                yield collate([predictor.sample(predictor.open(path))])
            return
        seen = 0
        for batch in eval_batches(self.dataset, 1):
            yield batch
            seen += len(batch)
            if seen >= COMPARED:
                return

    def calibration_batches(self) -> Iterator[Batch]:
        """Yield the calibration images for int8, one at a time."""
        assert self.calibration is not None
        for sample in self.calibration.samples(self._predictor()):
            yield collate([sample])

    def _predictor(self) -> Predictor:
        ids = self.state["meta"]["category_ids"]
        return Predictor(copy.deepcopy(self.detector), ids, **self.bounds, precision=Precision())

    def input_size(self) -> tuple[int, int]:
        """Return the most frequent padded size (height, width) of the images; otherwise (short, long) rounded up."""
        if self.dataset is not None:
            counted = Counter(padded_size((int(h), int(w))) for h, w in np.asarray(self.dataset.input_sizes))
            return counted.most_common(1)[0][0]
        if self.files:
            counted = Counter((batch.images.shape[2], batch.images.shape[3]) for batch in self.batches())
            return counted.most_common(1)[0][0]
        return padded_size((self.bounds["short"], self.bounds["long"]))

    def average_precision(self, model: Any) -> float:
        """Evaluate a detector on the dataset."""
        validation = evaluation_on(self.dataset, self.state["config"])
        with torch.inference_mode():
            return float(validation(model)["AP"])
