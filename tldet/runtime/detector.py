"""Prediction with an exported detector on paths, bytes and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, get_args

from .arrays import Channels, is_array_list, open_array
from .detections import NumpyDetections
from .errors import DataError, counted
from .files import PathName
from .image_types import ImageArray, Size
from .images import Reduced, fitted_size, padded_size, resize_to
from .network import ExportedNetwork, open_session
from .scores import ScoreSettings


class _Input(NamedTuple):
    """An image at the input size of the network, and the original (height, width)."""

    image: ImageArray
    original: Size


class NumpyDetector:
    """Exported detector that returns numpy arrays.

    Args:
        path: an ``.onnx`` or ``.xml`` (OpenVINO) file of ``tldet export``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` for ONNX; ``auto``, ``cpu``, ``gpu``, ... for OpenVINO.
        threads: number of CPU threads; None: chosen by the runtime.
        providers: ONNX Runtime execution providers in order of preference, instead of ``device``.
        precision: inference precision of OpenVINO: ``auto`` (fp32), ``fp32``, ``bf16`` or ``fp16``. ONNX files
            compute in the precision of their export.

    Attributes:
        class_names: name of each label.
        category_ids: category id of each label in the dataset.
        short: length in pixels to which the short side of an image is resized.
        long: largest length of the long side in pixels.

    Raises:
        CheckpointError: the file is missing or not an exported detector.
        ConfigError: a package or device is missing, or an option does not apply to the file.
    """

    def __init__(
        self,
        path: PathName,
        device: str = "auto",
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        precision: str = "auto",
    ) -> None:
        session = open_session(path, device, precision=precision, threads=threads, providers=providers)
        self._network = ExportedNetwork(session)
        self.metadata = session.metadata
        self.class_names, self.category_ids = self._network.class_names, self._network.category_ids
        self.short, self.long = self.metadata["input"]["short"], self.metadata["input"]["long"]
        self.scores = ScoreSettings.of(self.metadata.get("scores"), self.class_names, str(path))

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:5]) + (", ..." if len(self.class_names) > 5 else "")
        size = f"{self.short} x {self.long}"
        classes = counted(len(self.class_names), "class", "classes")
        return f"NumpyDetector({classes}: {names}; input {size}; {self._network.session.name})"

    def __call__(self, images: Any, score: float | None = None, batch: int = 4, *, channels: Channels = "rgb") -> Any:
        """Detect objects in one image or several.

        Args:
            images: an image, or a list, iterator or (N, ...) array of images. An image is a path, encoded content
                (bytes), or an array of shape (H, W), (H, W, C) or (C, H, W): gray, gray and alpha, RGB or RGBA, as
                uint8, uint16, bool, or float in 0..1.
            score: score threshold; None: the thresholds stored in the file, else 0.3. Detections below ``score_thr`` of
                the detection head are never returned.
            batch: largest number of images per batch.
            channels: channel order of arrays, ``rgb`` or ``bgr`` (as OpenCV reads them).

        Returns:
            :class:`~.detections.NumpyDetections` in pixels of the upright image; for several images, a list in the same
            order.

        Raises:
            DataError: an image cannot be read or converted; it is also a TypeError for objects that are not images.
            ValueError: ``batch`` is less than 1, or ``channels`` is unknown.
        """
        if not is_array_list(images):
            _check(batch, channels)
            return _raised(self._detected([self._opened(images, channels, "image")], score)[0])
        return [_raised(found) for _, found in self.stream(images, score, batch, channels=channels)]

    predict = __call__

    def stream(
        self, images: Iterable[Any], score: float | None = None, batch: int = 4, *, channels: Channels = "rgb"
    ) -> Iterator[tuple[Any, NumpyDetections | DataError]]:
        """Yield each image with its detections, or with the error of an image that cannot be read; in order.

        Args:
            images: images as in a call; they are read one batch at a time.
            score: score threshold, as in a call.
            batch: largest number of images per batch.
            channels: channel order of arrays.

        Raises:
            ValueError: ``batch`` is less than 1, or ``channels`` is unknown.
        """
        _check(batch, channels)
        left, number = iter(images), 0
        while group := list(islice(left, batch)):
            opened = [self._opened(image, channels, f"image {number + row}") for row, image in enumerate(group)]
            number += len(group)
            yield from zip(group, self._detected(opened, score), strict=True)

    def resized(self, image: Reduced) -> ImageArray:
        """Resize an image to the input size of the network, as in evaluation."""
        return resize_to(image.image, fitted_size(image.whole, self.short, self.long))

    def _opened(self, image: Any, channels: Channels, name: str) -> _Input | DataError:
        try:
            read = open_array(image, (self.short, self.long), channels=channels, name=name)
        except DataError as error:
            return error
        return _Input(self.resized(read), read.whole)

    def _detected(self, opened: Sequence[_Input | DataError], score: float | None) -> list[NumpyDetections | DataError]:
        """Run the network on images of one padded size at a time, so that an image does not depend on the others."""
        groups: dict[Size, list[int]] = {}
        for row, one in enumerate(opened):
            if not isinstance(one, DataError):
                groups.setdefault(padded_size((one.image.shape[0], one.image.shape[1])), []).append(row)
        found: list[Any] = list(opened)
        for rows in groups.values():
            inputs = [one for row in rows if not isinstance(one := opened[row], DataError)]
            detected = self._network.detect([one.image for one in inputs], [one.original for one in inputs])
            for row, detections in zip(rows, detected, strict=True):
                found[row] = self._selected(detections, score)
        return found

    def _selected(self, found: NumpyDetections, score: float | None) -> NumpyDetections:
        rows, scores = self.scores.select(found.scores, found.labels, score)
        return found.rescored(rows, scores)


def _check(batch: int, channels: str) -> None:
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    if channels not in get_args(Channels):
        raise ValueError(f"channels must be {' or '.join(map(repr, get_args(Channels)))}, not {channels!r}")


def _raised(found: NumpyDetections | DataError) -> NumpyDetections:
    if isinstance(found, DataError):
        raise found
    return found
