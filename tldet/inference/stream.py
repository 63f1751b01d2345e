"""Prediction on a stream of images, in batches of one padded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tldet.data.eval_batches import by_padded_size
from tldet.data.loader import Sample
from tldet.errors import DataError
from tldet.inference.tiling import Tiles
from tldet.structures.detections import Detections

WAITING = 4  # limit of the images that wait until images of the same size fill a batch, in batches


@dataclass(frozen=True)
class PreparedImage:
    """An image as input of the network.

    Attributes:
        samples: the resized image, or the resized tiles of the image.
        tiles: the tiles; None if the image is not tiled.
    """

    samples: Sequence[Sample]
    tiles: Tiles | None = None

    def merged(self, found: Sequence[Detections]) -> Detections:
        """Return the detections of the image from those of its samples."""
        return self.tiles.merge(found) if self.tiles else found[0]


StreamResult: TypeAlias = Detections | DataError
Predict: TypeAlias = Callable[[Sequence[Sample]], Sequence[Detections]]
Select: TypeAlias = Callable[[Detections], Detections]


def stream(
    items: Iterable[PreparedImage | DataError], predict: Predict, *, select: Select, batch: int
) -> Iterator[list[tuple[int, StreamResult]]]:
    """Predict on images as they arrive.

    Args:
        items: prepared images, or the errors of images that cannot be read. They are consumed in advance as far as
            necessary to fill batches.
        predict: the detector.
        select: selects the detections of a sample by score.
        batch: largest number of samples per batch.

    Yields:
        after each batch, a list of (number, detections or error) of the images that it completed; ``number`` is the
        index in ``items``, and each image occurs once.
    """
    waiting = _Waiting(items)
    for group in by_padded_size(waiting, batch, WAITING * batch):
        numbers, samples = zip(*group, strict=True)
        found = [select(one) for one in predict(samples)]
        if done := waiting.enter(numbers, found):
            yield done
    if done := waiting.done():
        yield done


class _Waiting:
    """Images whose samples are not all predicted yet."""

    def __init__(self, items: Iterable[PreparedImage | DataError]) -> None:
        self._items = items
        self._open: dict[int, tuple[PreparedImage, dict[int, Detections]]] = {}  # by number of the image
        self._places: dict[int, tuple[int, int]] = {}  # image and row of each sample
        self._done: list[tuple[int, StreamResult]] = []

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples of all images."""
        count = 0
        for number, item in enumerate(self._items):
            if isinstance(item, DataError):
                self._done.append((number, item))
                continue
            self._open[number] = item, {}
            for row, sample in enumerate(item.samples):
                self._places[count] = number, row
                count += 1
                yield sample

    def enter(self, numbers: Sequence[int], found: Sequence[Detections]) -> list[tuple[int, StreamResult]]:
        """Store the detections of samples; return the results of completed images."""
        for sample, detections in zip(numbers, found, strict=True):
            number, row = self._places.pop(sample)
            prepared, rows = self._open[number]
            rows[row] = detections
            if len(rows) == len(prepared.samples):
                del self._open[number]
                self._done.append((number, prepared.merged([rows[one] for one in range(len(rows))])))
        return self.done()

    def done(self) -> list[tuple[int, StreamResult]]:
        """Return the results of completed images, and remove them."""
        done, self._done = self._done, []
        return done
