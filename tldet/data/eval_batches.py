"""Batches for evaluation and prediction: images of one padded size, so that detections do not depend on the batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tldet.data.loader import Sample, Samples, collate, image_size, load_batches
from tldet.runtime.images import padded_size
from tldet.structures.batch import Batch
from tldet.structures.image import Size


def by_padded_size(samples: Iterable[Sample], batch_size: int, waiting: int) -> Iterator[list[tuple[int, Sample]]]:
    """Group samples of the same padded size, so that the detections of an image do not depend on its batch.

    Args:
        samples: consumed one after the other.
        batch_size: samples in a full group.
        waiting: largest number of samples held back; when reached, the largest group is yielded although not full.

    Returns:
        (number, sample) pairs of one group at a time; the number is the sample's index in ``samples``.
    """
    groups: dict[Size, list[tuple[int, Sample]]] = {}
    for number, sample in enumerate(samples):
        size = padded_size(image_size(sample))
        groups.setdefault(size, []).append((number, sample))
        if len(groups[size]) >= batch_size:
            yield groups.pop(size)
        elif sum(len(group) for group in groups.values()) >= waiting:
            yield groups.pop(max(groups, key=lambda key: len(groups[key])))
    yield from groups.values()


def collate_by_size(samples: Sequence[Sample]) -> list[Batch]:
    """Collate samples into one batch per padded size."""
    groups = by_padded_size(samples, len(samples), len(samples))
    return [collate([sample for _, sample in group]) for group in groups]


def eval_batches(
    dataset: Samples,
    batch_size: int,
    *,
    workers: int = 0,
    collate: Callable[[Sequence[Any]], Sequence[Any]] = collate_by_size,
    pin: bool = False,
) -> Iterator[Any]:
    """Yield every sample once, in batches of one padded size, so that detections do not depend on the batch.

    Args:
        dataset: the samples.
        batch_size: samples per batch.
        workers: loader processes; 0 loads in the main process.
        collate: turns samples into a list of batches. Samples of equal ``input_sizes`` come together.
        pin: copy batches to pinned memory.

    Raises:
        DataError: an image is missing or damaged; the message names it.
    """
    groups: dict[Size, list[int]] = {}
    for position, (height, width) in enumerate(dataset.input_sizes.tolist()):
        groups.setdefault(padded_size((height, width)), []).append(position)
    batches = [
        group[start : start + batch_size]
        for _, group in sorted(groups.items())
        for start in range(0, len(group), batch_size)
    ]
    return itertools.chain.from_iterable(load_batches(dataset, batches, workers, collate, pin))
