"""Quantization of a detector to int8 within a maximum drop in AP."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tldet.errors import ConfigError
from tldet.exporting.files import SUFFIXES, write_model
from tldet.exporting.quantize import INT8_FORMATS, Inputs, Quantizer, load_nncf
from tldet.exporting.search import Quantization, SearchOptions, search
from tldet.exporting.verify import detection_distance
from tldet.inference.runtimes.exported import ExportedDetector, graph_inputs, load_exported
from tldet.runtime.session import INPUTS
from tldet.structures.batch import Batch
from tldet.text import counted
from tldet.workflows.export.calibration import SEED
from tldet.workflows.export.data import ExportData
from tldet.workflows.export.request import ExportRequest

log = logging.getLogger(__name__)
SENSITIVITY_IMAGES = 8  # images on which sensitivity is measured
MAX_DISTANCE = 0.2  # limit of the distance of the detections, without a dataset to compute AP


def check_int8(request: ExportRequest) -> None:
    """Check the options for int8.

    Raises:
        ConfigError: int8 is not available for the format or with ``raw``, NNCF is missing, or ``calibration`` is set
            without int8.
    """
    if request.precision != "int8":
        if request.calibration is not None:
            raise ConfigError("--calibration requires --precision int8")
        return
    if request.format not in INT8_FORMATS:
        raise ConfigError(
            f"--precision int8 is not available for format {request.format}; use --format openvino or onnx"
        )
    if request.raw:
        raise ConfigError("--precision int8 cannot be combined with --raw: the search compares detections")
    load_nncf()


class CandidateFile:
    """Temporary file that holds one candidate model at a time.

    Args:
        path: the file.
        metadata: metadata of the file.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path, self.metadata = path, metadata

    def load(self, model: Any) -> ExportedDetector:
        """Write a model to the file and load it."""
        write_model(model, self.path, self.metadata)
        return load_exported(self.path)


def quantize(
    model: Any, work: ExportData, request: ExportRequest, metadata: Mapping[str, Any], limit: float
) -> Quantization:
    """Quantize the graph of a detector; parts that lose accuracy stay in fp32.

    Args:
        model: the graph as an ONNX or OpenVINO model.
        work: the detector and its images.
        request: number of images and time limit.
        metadata: metadata of the file; its ``AP`` is that of the checkpoint, or None without a dataset.
        limit: maximum allowed drop in AP.
    """
    before = metadata["AP"]
    with tempfile.TemporaryDirectory() as folder:
        candidate = CandidateFile(Path(folder) / f"candidate{SUFFIXES[request.format]}", metadata)
        plain = candidate.load(model)
        calibration = [_fitted(plain, batch) for batch in work.calibration_batches()]
        assert work.calibration is not None
        log.info("calibrating on %s (%s)", counted(len(calibration), "image"), work.calibration.source)
        inputs: list[Inputs] = [dict(zip(INPUTS, graph_inputs(batch), strict=True)) for batch in calibration]
        distance = _Distance(work, candidate, calibration[:SENSITIVITY_IMAGES])
        found = search(
            Quantizer(model, work.detector, inputs),
            distance,
            distance if before is None else lambda model: before - work.average_precision(candidate.load(model)),
            MAX_DISTANCE if before is None else limit,
            SearchOptions(
                len(inputs), SENSITIVITY_IMAGES, 60 * request.minutes, "distance" if before is None else "AP drop"
            ),
        )
    for part, reason in found.kept.items():
        log.info("%s stays in fp32 (%s)", part, reason)
    return found


def quantization_metadata(found: Quantization, work: ExportData) -> dict[str, Any]:
    """Return the metadata of a quantized file."""
    assert work.calibration is not None
    images = {"images": len(work.calibration), "source": work.calibration.source, "seed": SEED}
    return {"calibration": images, **found.summary()}


class _Distance:
    """Distance of a model's detections from those of the checkpoint on some images."""

    def __init__(self, work: ExportData, candidate: CandidateFile, batches: Sequence[Batch]) -> None:
        self.candidate, self.batches = candidate, batches
        with torch.inference_mode():
            self.expected = [work.detector.predict(batch)[0] for batch in batches]

    def __call__(self, model: Any) -> float:
        exported = self.candidate.load(model)
        return detection_distance(self.expected, [exported.predict(batch)[0] for batch in self.batches])


def _fitted(exported: ExportedDetector, batch: Batch) -> Batch:
    """Return an image at the input size of the graph; detections are in pixels of that input."""
    fitted = exported.fitted(batch)
    fitted.original_sizes = fitted.sizes
    return fitted
