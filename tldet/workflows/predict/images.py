"""Prediction on images: decoded by a pool of threads, predicted in batches, and written by another thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.inference.predictor import Predictor
from tldet.inference.sources import InputSource
from tldet.inference.stream import PreparedImage, StreamResult
from tldet.inference.threads import BackgroundWorker, mapped
from tldet.runtime.images import Reduced
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray, Size
from tldet.visualize.drawing import draw
from tldet.workflows.predict.outputs import write_image
from tldet.workflows.predict.results import ResultsWriter

MOST_READERS = 8  # threads that decode images
_AHEAD = 2  # images decoded in advance, in addition to one per thread; an image may take 100 MB
WRITTEN_BEHIND = 8  # maximum number of images waiting to be written


@dataclass(frozen=True)
class _Read:
    """An image that is ready for the detector, or the error of one that cannot be read.

    Attributes:
        source: the image.
        item: input of the detector.
        image: the pixels, if an output needs them.
        size: (height, width) at full size.
        frames: number of frames of the file.
    """

    source: InputSource
    item: PreparedImage | DataError
    image: Reduced | None = None
    size: Size = (0, 0)
    frames: int = 1


class ImageRun:
    """Prediction on image files.

    Args:
        predictor: the detector.
        results: writer of the detections.
        score: score threshold; None for the thresholds of the checkpoint.
        batch: largest number of images per batch.
    """

    def __init__(self, predictor: Predictor, results: ResultsWriter, score: float | None, batch: int) -> None:
        self.predictor, self.results, self.score, self.batch = predictor, results, score, batch
        self._draws = bool(results.paths.out or results.paths.crops)
        self._open: dict[int, _Read] = {}  # images that are not predicted yet, by their number

    def __call__(
        self, sources: Sequence[InputSource], advance: Callable[[], object], stopped: Callable[[], bool]
    ) -> None:
        """Predict on images and write the outputs; a stopped run writes those of the completed images.

        Args:
            sources: the images.
            advance: called after each image.
            stopped: returns True if the run should stop after the current batch.

        Raises:
            DataError: an output cannot be written.
        """
        with BackgroundWorker(self._write, WRITTEN_BEHIND) as writing:
            for group in self.predictor.stream(self._items(sources), self.score, self.batch):
                for number, found in group:
                    writing.put((self._open.pop(number), found))
                    advance()
                if stopped():
                    break

    def _items(self, sources: Sequence[InputSource]) -> Iterator[PreparedImage | DataError]:
        """Yield the images for the detector, read in advance."""
        readers = max(1, min(MOST_READERS, (os.cpu_count() or 1) // 2))
        for number, read in enumerate(mapped(self._read, sources, readers, readers + _AHEAD)):
            self._open[number] = read
            yield read.item

    def _read(self, source: InputSource) -> _Read:
        try:
            image = self.predictor.open(source.path)
            prepared = self.predictor.prepare(image)
            return _Read(source, prepared, image if self._draws else None, image.whole, image.frames)
        except DataError as error:
            return _Read(source, error)

    def _write(self, given: tuple[_Read, StreamResult]) -> None:
        """Write the outputs of an image; its line in the JSON Lines file is written last."""
        read, found = given
        if isinstance(found, DataError):
            self.results.fail(read.source, found)
            return
        try:
            pixels = self._pixels(read)
        except DataError as error:
            self.results.fail(read.source, error)
            return
        self._write_files(read, found, pixels)
        self.results.add(read.source, found, read.size)
        self.results.summary.images += 1
        if read.frames > 1:
            self.results.summary.several_frames.append(read.source.path.as_posix())

    def _pixels(self, read: _Read) -> ImageArray | None:
        """Return the image at full size if an output needs it."""
        if read.image is None or read.image.factor == 1:
            return None if read.image is None else read.image.image
        return read_image(read.source.path, self.predictor.limits)

    def _write_files(self, read: _Read, found: Detections, pixels: ImageArray | None) -> None:
        self.results.export(read.source, found, pixels, read.size)
        out = self.results.paths.out
        if out and pixels is not None:
            write_image(out / read.source.name, draw(pixels, found))
