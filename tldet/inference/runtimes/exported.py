"""Exported detectors with the interface of :class:`~tldet.models.detector.Detector` for prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tldet.errors import ConfigError
from tldet.inference.runtimes.tensorrt import TensorRtSession
from tldet.inference.runtimes.torch_export import TorchExportSession
from tldet.runtime.detections import NumpyDetections
from tldet.runtime.network import ExportedNetwork, open_session, require_precision
from tldet.runtime.session import Session
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray, Size
from tldet.structures.masks import InstanceMasks

EXPORTED_SUFFIXES = (".onnx", ".xml", ".pt2", ".engine")


class ExportedDetector:
    """An exported detector: an :class:`~tldet.runtime.network.ExportedNetwork` that takes and returns tensors.

    Args:
        session: the loaded file.

    Attributes:
        device: device of images and detections.
    """

    device = torch.device("cpu")

    def __init__(self, session: Session) -> None:
        self.network = ExportedNetwork(session)
        self.metadata = session.metadata
        self.class_names = self.network.class_names

    @property
    def name(self) -> str:
        """Name of the runtime with its device."""
        return self.network.session.name

    @property
    def size(self) -> Size | None:
        """(height, width) of the padded images; None for any multiples of 32."""
        return self.network.size

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
        return [as_tensors(found) for found in self.network.detect(_images(batch), batch.original_sizes)]

    def fitted(self, batch: Batch) -> Batch:
        """Fit the images to the input size of the graph: pad them, or scale them down if they are too large."""
        if self.size is None or tuple(batch.images.shape[2:]) == self.size:
            return batch
        images = torch.zeros(len(batch), *self.size, 3, dtype=torch.uint8)
        fitting = [self.network.fit(image) for image in _images(batch)]
        for slot, image in zip(images, fitting, strict=True):
            slot[: image.shape[0], : image.shape[1]] = torch.from_numpy(np.ascontiguousarray(image))
        sizes = [(image.shape[0], image.shape[1]) for image in fitting]
        return replace(batch, images=images.permute(0, 3, 1, 2), sizes=sizes)


def _images(batch: Batch) -> list[ImageArray]:
    """Return the images of a batch without padding, (H, W, 3) each."""
    images = batch.images.permute(0, 2, 3, 1).numpy()
    return [image[:height, :width] for image, (height, width) in zip(images, batch.sizes, strict=True)]


def as_tensors(found: NumpyDetections) -> Detections:
    """Convert numpy arrays to tensors that share their memory."""
    boxes, scores, labels = (torch.from_numpy(part) for part in (found.boxes, found.scores, found.labels))
    masks, patches = None, found.patches
    if patches is not None:
        masks = InstanceMasks(torch.from_numpy(patches.patches), boxes, patches.size, patches.threshold, patches.paste)
    return Detections(boxes, scores, labels, masks, found.class_names)


def graph_inputs(batch: Batch) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (B, H, W, 3) and sizes (B, 2) as inputs of a graph, for a batch at the input size of the graph."""
    return np.ascontiguousarray(batch.images.permute(0, 2, 3, 1).numpy()), np.asarray(batch.sizes, np.int64)


def refuse_nms(nms_per_class: bool | None) -> None:
    """Reject NMS settings, because NMS is part of the graph.

    Raises:
        ConfigError: the setting is given.
    """
    if nms_per_class is not None:
        raise ConfigError(
            "--nms-per-class, --nms-agnostic: fixed in an exported detector; set the option in tldet export"
        )


def refuse_threads(path: str | Path, threads: int | None) -> None:
    """Reject a number of threads for a file that does not run in ONNX Runtime or OpenVINO.

    Raises:
        ConfigError: the setting is given.
    """
    if threads is not None:
        raise ConfigError(
            f"--threads applies to .onnx and .xml files, not to {path}; for torch, set the environment variable "
            "OMP_NUM_THREADS"
        )


def load_exported(
    path: str | Path, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> ExportedDetector:
    """Load an exported detector with the runtime of its file type.

    Args:
        path: an ``.onnx``, ``.xml``, ``.pt2`` or ``.engine`` file.
        device: device of the runtime.
        precision: ``auto``; for OpenVINO, also the inference precision.
        threads: number of CPU threads of ONNX Runtime or OpenVINO; None: chosen by the runtime.

    Raises:
        CheckpointError: the file is missing or not an exported detector.
        ConfigError: a package or device is missing, or the precision is fixed in the file, or an option does not
            apply to it.
    """
    path = Path(path)
    if path.suffix not in (".pt2", ".engine"):
        return ExportedDetector(open_session(path, device, precision=precision, threads=threads))
    refuse_threads(path, threads)
    session: Session = (TorchExportSession if path.suffix == ".pt2" else TensorRtSession)(path, device)
    require_precision(session, path, precision)
    return ExportedDetector(session)
