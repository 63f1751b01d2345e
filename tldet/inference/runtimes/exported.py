"""Exported detectors with the interface of :class:`~tldet.models.detector.Detector` for prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tldet.data.images import fitted_size, resize_to
from tldet.errors import CheckpointError, ConfigError
from tldet.inference.runtimes.base import Runtime
from tldet.inference.runtimes.onnx import OnnxRuntime
from tldet.inference.runtimes.openvino import OpenVinoRuntime
from tldet.inference.runtimes.torch_export import TorchExportRuntime
from tldet.models.detector import rescale
from tldet.models.postprocess import DetectionTensors, to_detections
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.system.inputs import require_file

EXPORTED_SUFFIXES = (".onnx", ".xml", ".pt2")


class ExportedDetector:
    """An exported detector.

    Args:
        runtime: the loaded file.

    Attributes:
        device: device of images and detections.
    """

    device = torch.device("cpu")

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.metadata = runtime.metadata
        self.class_names = tuple(self.metadata["class_names"])
        size = self.metadata.get("size")
        self.size: Size | None = (size[0], size[1]) if size else None  # None: dynamic

    @property
    def head(self) -> str:
        """Name of the head."""
        return str(self.metadata.get("head", "detector"))

    @property
    def predicts_masks(self) -> bool:
        """True if detections have masks."""
        return bool(self.metadata.get("masks"))

    def predict(self, batch: Batch) -> list[Detections]:
        """Compute the detections in pixels of the original images."""
        fitted = self.fitted(batch)
        rows = [[row] for row in range(len(fitted))] if self.metadata.get("batch") == 1 else [range(len(fitted))]
        found = [one for some in rows for one in self._run(fitted, list(some))]
        sizes = zip(found, fitted.sizes, fitted.original_sizes, strict=True)
        return [rescale(one, size, original, self.class_names) for one, size, original in sizes]

    def _run(self, batch: Batch, rows: list[int]) -> list[Detections]:
        sizes = [batch.sizes[row] for row in rows]
        images = np.ascontiguousarray(batch.images[rows].permute(0, 2, 3, 1).numpy())
        outputs = self.runtime.run(images, np.asarray(sizes, np.int64))
        return to_detections(DetectionTensors(*outputs), sizes, **(self.metadata.get("masks") or {}))

    def fitted(self, batch: Batch) -> Batch:
        """Fit the images to the input size of the graph: pad them, or scale them down if they are too large."""
        if self.size is None or tuple(batch.images.shape[2:]) == self.size:
            return batch
        images = torch.zeros(len(batch), *self.size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        sizes = []
        for row, (image, size) in enumerate(zip(batch.images, batch.sizes, strict=True)):
            fitting = _within(image[:, : size[0], : size[1]], self.size)
            images[row, :, : fitting.shape[1], : fitting.shape[2]] = fitting
            sizes.append((fitting.shape[1], fitting.shape[2]))
        return replace(batch, images=images, sizes=sizes)


def refuse_nms(nms_per_class: bool | None) -> None:
    """Reject a change of NMS, which is part of the graph.

    Raises:
        ConfigError: the setting is given.
    """
    if nms_per_class is not None:
        raise ConfigError(
            "--nms-per-class, --nms-agnostic: fixed in an exported detector; give the option to tldet export"
        )


def _within(image: Tensor, size: Size) -> Tensor:
    """Return an image (3, h, w) that is not larger than ``size``."""
    height, width = image.shape[1:]
    if height <= size[0] and width <= size[1]:
        return image
    scale = min(size[0] / height, size[1] / width)
    target_size = fitted_size(
        (height, width), max(1, int(min(height, width) * scale)), max(1, int(max(height, width) * scale))
    )
    pixels = resize_to(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), target_size)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def load_exported(
    path: str | Path, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> ExportedDetector:
    """Load an exported detector with the runtime of its file type.

    Args:
        path: an ``.onnx``, ``.xml`` or ``.pt2`` file.
        device: device of the runtime.
        precision: ``auto``, or for OpenVINO the precision in which it computes.
        threads: threads of the runtime; None leaves the choice to it.

    Raises:
        CheckpointError: the file is missing or not an exported detector.
        ConfigError: a package or device is missing, or the precision is fixed in the file.
    """
    path = Path(path)
    require_file(path, CheckpointError)
    runtime: Any
    if path.suffix == ".xml":
        return ExportedDetector(OpenVinoRuntime(path, device, threads, precision))
    runtime = OnnxRuntime(path, device, threads) if path.suffix == ".onnx" else TorchExportRuntime(path, device)
    if precision not in ("auto", runtime.metadata["precision"]):
        stated = runtime.metadata["precision"]
        raise ConfigError(f"precision {precision!r}: {path} was exported in {stated}; use 'auto', or export it again")
    return ExportedDetector(runtime)
