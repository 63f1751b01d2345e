"""Calibration images for int8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tldet.components import require_components
from tldet.data.loader import Sample
from tldet.data.subsets import stratified_order
from tldet.errors import DataError
from tldet.inference.predictor import Predictor
from tldet.inference.sources import find_sources
from tldet.workflows.evaluation_data import check_config
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.training.datasets import AnyDataset, build_dataset

SEED = 0


class CalibrationImages:
    """Calibration images: a sample of the training split, stratified by class, or of a folder.

    Args:
        state: content of the checkpoint.
        request: ``calibration``, ``images`` and ``calibration_images`` choose the images.

    Attributes:
        source: origin of the images, for messages and metadata.

    Raises:
        DataError: there are no images.
    """

    def __init__(self, state: dict[str, Any], request: ExportRequest) -> None:
        self.state = state
        self._dataset: AnyDataset | None = None
        folder, section = request.calibration, (state["config"].get("data") or {}).get("train")
        if folder is None and not section and request.data is None:
            folder = request.images
        if folder is not None:
            self._take_files(str(folder), request.calibration_images)
        elif section:
            self._take_training_images(Path(request.checkpoint), section, request.calibration_images)
        else:
            raise DataError(
                f"{request.checkpoint}: int8 needs calibration images, and its config has no training split; "
                "use --calibration DIR"
            )

    def _take_files(self, folder: str, count: int) -> None:
        files = [source.path for source in find_sources([folder])[0] if source.kind == "image"]
        if not files:
            raise DataError(f"{folder}: contains no images; int8 needs calibration images")
        self._rows: list[Any] = [files[row] for row in np.random.default_rng(SEED).permutation(len(files))[:count]]
        self.source = Path(folder).name

    def _take_training_images(self, checkpoint: Path, section: dict[str, Any], count: int) -> None:
        require_components(checkpoint, self.state, "data.train")
        check_config(checkpoint, self.state["config"], "train")
        resized = {**section, "transforms": [{"type": "Resize", **self.state["meta"]["input"]}]}
        try:
            dataset = build_dataset(resized, SEED, tuple(self.state["meta"]["class_names"]), path="data.train")
        except DataError as error:
            raise DataError(f"{error}; to calibrate int8 on other images, use --calibration DIR") from None
        self._dataset = dataset
        row_of = {position: row for row, position in enumerate(dataset.positions.tolist())}
        order = stratified_order(dataset.index, SEED, absent=True).tolist()
        self._rows = [row_of[position] for position in order if position in row_of][:count]
        if not self._rows:
            raise DataError(f"{checkpoint}: its training split has no images; int8 needs calibration images")
        self.source = "training split"

    def __len__(self) -> int:
        return len(self._rows)

    def samples(self, predictor: Predictor) -> Iterator[Sample]:
        """Read the images, resized as in prediction; any first part of a stratified sample is stratified too."""
        for row in self._rows:
            yield predictor.sample(predictor.open(row)) if self._dataset is None else self._dataset[row]
