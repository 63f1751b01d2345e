"""Inference with an exported graph, from resized images to detections in pixels of the original images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .detections import NumpyDetections
from .errors import CheckpointError, ConfigError, counted
from .files import PathName, require_file
from .image_types import ImageArray, Size
from .images import fitted_size, padded_size, resize_to
from .masks import MaskPatches
from .onnx_session import OnnxSession
from .openvino_session import OpenVinoSession
from .session import Session


def open_session(
    path: PathName,
    device: str = "auto",
    *,
    precision: str = "auto",
    threads: int | None = None,
    providers: Sequence[str] | None = None,
) -> Session:
    """Load an exported detector with the runtime of its file type.

    Args:
        path: an ``.onnx`` or ``.xml`` (OpenVINO) file.
        device: see :class:`~.onnx_session.OnnxSession` and :class:`~.openvino_session.OpenVinoSession`.
        precision: ``auto``, or the inference precision; for an ONNX file, only that of its export.
        threads: number of CPU threads; None: chosen by the runtime.
        providers: ONNX Runtime execution providers, instead of ``device``.

    Raises:
        CheckpointError: the file is missing or not an exported detector.
        ConfigError: a package or device is missing, or an option does not apply to the file.
    """
    path = Path(path)
    require_file(path, CheckpointError)
    if path.suffix not in (".onnx", ".xml"):
        raise CheckpointError(f"{path}: must be an .onnx or .xml file written by tldet export")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads}")
    if path.suffix == ".xml":
        if providers is not None:
            raise ConfigError(f"providers: {path} runs in OpenVINO, which has no providers; use device")
        return OpenVinoSession(path, device, threads, precision)
    session = OnnxSession(path, device, threads, providers)
    require_precision(session, path, precision)
    return session


def require_precision(session: Session, path: Path, precision: str) -> None:
    """Check the requested precision of a file that can only compute in the precision of its export.

    Raises:
        ConfigError: another precision is requested.
    """
    stated = session.metadata["precision"]
    if precision not in ("auto", stated):
        raise ConfigError(f"precision {precision!r}: {path} was exported in {stated}; use 'auto', or export it again")


class ExportedNetwork:
    """Exported graph of a detector with its classes.

    Args:
        session: the loaded file.

    Attributes:
        size: fixed (height, width) of the padded images; None if any multiples of 32 are accepted.
        single: the graph accepts only one image per call.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.metadata = session.metadata
        self.class_names = tuple(self.metadata["class_names"])
        self.category_ids = tuple(self.metadata["category_ids"])
        size = self.metadata.get("size")
        self.size: Size | None = (size[0], size[1]) if size else None
        self.single = self.metadata.get("batch") == 1

    def detect(self, images: Sequence[ImageArray], originals: Sequence[Size]) -> list[NumpyDetections]:
        """Detect objects.

        Args:
            images: resized images, (H, W, 3) uint8 RGB each.
            originals: (height, width) of the image files.

        Returns:
            Detections in pixels of the image files, best score first.
        """
        fitting = [self.fit(image) for image in images]
        groups = [[one] for one in fitting] if self.single else [fitting]
        outputs = [row for group in groups if group for row in self._run(group)]
        sizes = [(image.shape[0], image.shape[1]) for image in fitting]
        return [self._detections(*one) for one in zip(outputs, sizes, originals, strict=True)]

    def fit(self, image: ImageArray) -> ImageArray:
        """Downscale an image that exceeds a fixed input size."""
        height, width = image.shape[:2]
        if self.size is None or (height <= self.size[0] and width <= self.size[1]):
            return image
        scale = min(self.size[0] / height, self.size[1] / width)
        short, long = (max(1, int(side * scale)) for side in sorted((height, width)))
        return resize_to(image, fitted_size((height, width), short, long))

    def _run(self, images: Sequence[ImageArray]) -> list[list[NDArray[Any]]]:
        """Return boxes, scores, labels and, for a mask detector, masks of each image."""
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        padded = [padded_size(size) for size in sizes]
        height, width = self.size or (max(side[0] for side in padded), max(side[1] for side in padded))
        batch = np.zeros((len(images), height, width, 3), np.uint8)
        for slot, image in zip(batch, images, strict=True):
            slot[: image.shape[0], : image.shape[1]] = image
        outputs = self.session.run(batch, np.asarray(sizes, np.int64))
        if problem := self._problem(outputs, len(images)):
            raise CheckpointError(f"{self.session.path}: {problem}; export the detector again")
        boxes, scores, labels, counts, *masks = outputs
        return [[part[row, :count] for part in (boxes, scores, labels, *masks)] for row, count in enumerate(counts)]

    def _problem(self, outputs: Sequence[NDArray[Any]], images: int) -> str | None:
        """Return the reason why outputs are not valid detections; None if they are."""
        count = 5 if self.metadata.get("masks") else 4
        if len(outputs) != count:
            return f"has {len(outputs)} outputs instead of {count}"
        boxes, scores, labels, counts = outputs[:4]
        rows = scores.shape[:2]
        shapes = [scores.shape, labels.shape, boxes.shape, counts.shape, *(one.shape[:2] for one in outputs[4:])]
        if len(rows) != 2 or shapes != [rows, rows, (*rows, 4), (images,), rows][:count]:
            return f"has outputs of shapes {', '.join(str(one.shape) for one in outputs)} for a batch of {images}"
        valid = np.arange(rows[1]) < counts[:, None]
        if (counts < 0).any() or (counts > rows[1]).any():
            return "outputs counts of detections above the number of rows"
        if ((labels < 0) | (labels >= len(self.class_names)))[valid].any():
            return f"outputs labels outside its {counted(len(self.class_names), 'class', 'classes')}"
        if not (np.isfinite(boxes[valid]).all() and np.isfinite(scores[valid]).all()):
            return "outputs boxes or scores that are not finite (its weights are damaged, or exceed the precision)"
        return None

    def _detections(self, outputs: Sequence[NDArray[Any]], size: Size, original: Size) -> NumpyDetections:
        boxes, scores, labels, *masks = outputs
        factor = np.array([original[1] / size[1], original[0] / size[0]] * 2, np.float32)
        boxes = (boxes.astype(np.float32) * factor).clip(0, np.array([original[1], original[0]] * 2, np.float32))
        settings = self.metadata.get("masks")
        patches = MaskPatches(masks[0].astype(np.float32), boxes, original, **settings) if masks and settings else None
        names = self.class_names, self.category_ids
        return NumpyDetections(boxes, scores.astype(np.float32), labels.astype(np.int64), *names, patches)
