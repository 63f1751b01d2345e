"""Images on which an exported file is verified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from tldet.components import require_components
from tldet.config import build_settings
from tldet.data.eval_batches import eval_batches
from tldet.data.loader import collate, padded_size
from tldet.data.settings import LoaderSettings
from tldet.data.split_paths import evaluation_split
from tldet.engine.precision import Precision
from tldet.errors import DataError
from tldet.inference.predictor import Predictor
from tldet.inference.sources import find_sources
from tldet.models.detector import Detector
from tldet.structures.batch import Batch
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.training.datasets import build_dataset, check_images
from tldet.workflows.training.schema import EvalSettings
from tldet.workflows.training.validation import Validation

COMPARED = 16  # images whose detections are compared one by one


class ExportData:
    """A checkpoint and the images for its verification."""

    def __init__(
        self,
        detector: Detector,
        state: dict[str, Any],
        request: ExportRequest,
    ) -> None:
        self.checkpoint, self.detector, self.state = Path(request.checkpoint), detector, state
        data, images, verify = request.data, request.images, request.verify and not request.raw
        self.bounds: dict[str, Any] = state["meta"]["input"]
        self.verify, self.dataset = verify, cast(Any, None)
        self.files: list[Path] = []
        self.loader = build_settings(LoaderSettings, (state["config"].get("data") or {}).get("loader") or {})
        if verify and images is not None and data is None:
            self.files = [source.path for source in find_sources([str(images)])[0] if source.kind == "image"][:COMPARED]
            if not self.files:
                raise DataError(f"{images}: no image to verify the export on")
        elif verify:
            self.dataset = self._dataset(data, images)

    def _dataset(self, data: str | Path | None, images: str | Path | None) -> Any:
        section = dict(((self.state["config"].get("data") or {}).get("val")) or {})
        if data is not None:
            found = evaluation_split(Path(data), images)
            section = {"type": "CocoDataset", "annotations": str(found.annotations), "images": str(found.images)}
            section["transforms"] = [{"type": "Resize", **self.bounds}]
        elif not section:
            raise DataError(f"{self.checkpoint}: names no validation data; give --data or --images, or --no-verify")
        else:
            require_components(self.checkpoint, self.state, "data.val")
        dataset = build_dataset(section, 0, tuple(self.state["meta"]["class_names"]))
        check_images(dataset)
        return dataset

    def batches(self) -> Iterator[Batch]:
        """Yield the images that are compared one by one."""
        if self.dataset is None:
            predictor = Predictor(
                self.detector, self.state["meta"]["category_ids"], **self.bounds, precision=Precision()
            )
            for path in self.files:
                yield collate([predictor.sample(predictor.open(path))])
            return
        seen = 0
        for batch in eval_batches(self.dataset, 1):
            yield batch
            seen += len(batch)
            if seen >= COMPARED:
                return

    def input_size(self) -> tuple[int, int]:
        """Return the most frequent padded size of the images; without images, that of a wide one."""
        if self.dataset is not None:
            counted = Counter(padded_size((int(h), int(w))) for h, w in np.asarray(self.dataset.input_sizes))
            return counted.most_common(1)[0][0]
        if self.files:
            counted = Counter((batch.images.shape[2], batch.images.shape[3]) for batch in self.batches())
            return counted.most_common(1)[0][0]
        return padded_size((self.bounds["short"], self.bounds["long"]))

    def average_precision(self, model: Any) -> float:
        """Evaluate a detector on the dataset."""
        kind = (self.state["config"].get("evaluation") or {}).get("type", "bbox")
        validation = Validation(self.dataset, self.loader, EvalSettings(kind), losses=False)
        with torch.inference_mode():
            return float(validation(model)["AP"])
