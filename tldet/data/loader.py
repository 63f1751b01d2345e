"""Order of samples and training batches.

Batch number s depends neither on the number of worker processes nor on the step at which training was resumed.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tldet.data.workers import Workers, set_up_worker
from tldet.errors import DataError
from tldet.runtime.images import DIVISOR, padded_size
from tldet.structures.batch import Batch
from tldet.structures.image import ImageArray, Size
from tldet.structures.target import Target

Collate = Callable[[Sequence[Any]], Any]  # from samples to a batch


class Samples(Protocol):
    """Interface of the datasets that batches are loaded from."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width)."""
        ...

    @property
    def input_sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width) after the transforms, as far as it is known before they run."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey, /) -> Any: ...


class SampleKey(NamedTuple):
    """Key of a sample and of its augmentation: epoch, index in the dataset, and number of its batch in the epoch."""

    epoch: int
    position: int
    batch: int


def as_pixels(image: ImageArray) -> Tensor:
    """Return an image (H, W, 3) as a tensor (3, H, W) uint8 that shares its memory if the image is contiguous."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


@dataclass
class Sample:
    """Image of a batch: image (3, H, W) uint8 RGB, its target, and the (height, width) of the image file."""

    image: Tensor
    target: Target
    original_size: Size


class BatchOrder:
    """Division of the samples into batches, a pure function of (seed, epoch).

    Args:
        sizes: (I, 2) (height, width) of every sample.
        batch_size: samples per batch; the last batch of an epoch may be smaller without ``shuffle``.
        seed: random seed.
        shuffle: draw a new order in each epoch, and leave out the samples that do not fill a batch.
        group_aspect: keep wide and tall images in separate batches, which need less padding.
    """

    def __init__(
        self,
        sizes: NDArray[np.int32],
        batch_size: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        group_aspect: bool = True,
    ) -> None:
        self.count, self.batch_size, self.seed, self.shuffle = len(sizes), min(batch_size, len(sizes)), seed, shuffle
        self.tall = sizes[:, 0] > sizes[:, 1] if group_aspect else np.zeros(len(sizes), np.bool_)

    def __len__(self) -> int:
        full, rest = divmod(self.count, self.batch_size)
        return full if self.shuffle else full + bool(rest)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch, each a list of positions."""
        if not self.shuffle:
            return [
                list(range(start, min(start + self.batch_size, self.count)))
                for start in range(0, self.count, self.batch_size)
            ]
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self.count)[: len(self) * self.batch_size]  # images of any shape may be left out
        wide, tall = order[~self.tall[order]], order[self.tall[order]]
        # The remainders of both shapes form a mixed batch, so that no further sample is left out.
        rest = np.concatenate([group[len(group) - len(group) % self.batch_size :] for group in (wide, tall)])
        flat = [group[: len(group) - len(group) % self.batch_size] for group in (wide, tall)]
        rows = np.concatenate([*flat, rest]).reshape(-1, self.batch_size)
        return [batch.tolist() for batch in rows[random.permutation(len(rows))]]


class _Endless(Sampler[list[SampleKey]]):
    """Keys of batch number ``start`` and of every ``every``-th batch after it, without end."""

    def __init__(self, order: BatchOrder, start: int, every: int) -> None:
        self.order, self.start, self.every = order, start, every

    def __iter__(self) -> Iterator[list[SampleKey]]:
        drawn = -1
        batches: list[list[int]] = []
        for batch in itertools.count(self.start, self.every):
            epoch, number = divmod(batch, len(self.order))
            if epoch != drawn:
                drawn, batches = epoch, self.order.epoch(epoch)
            yield [SampleKey(epoch, position, number) for position in batches[number]]


class _ErrorsAsValues(Dataset[Any]):
    """Dataset that returns the error of a bad sample, so that the main process raises it as one line."""

    def __init__(self, dataset: Samples) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def image_size(sample: Sample) -> Size:
    """Return the (height, width) of the image of a sample."""
    return int(sample.image.shape[1]), int(sample.image.shape[2])


def collate(samples: Sequence[Sample], divisor: int = DIVISOR) -> Batch:
    """Pad images at the right and bottom with zeros to one size, a multiple of ``divisor``, in channels-last memory."""
    sizes = [image_size(sample) for sample in samples]
    height, width = (max(sides) for sides in zip(*(padded_size(size, divisor) for size in sizes), strict=True))
    images = torch.zeros(len(samples), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for row, sample in enumerate(samples):
        images[row, :, : sizes[row][0], : sizes[row][1]] = sample.image
    return Batch(images, sizes, [s.target for s in samples], [s.original_size for s in samples])


def _collate_or_error(samples: Sequence[Any], collate: Collate) -> Any:
    try:
        return next((s for s in samples if isinstance(s, DataError)), None) or collate(samples)
    except DataError as error:
        return error


def load_batches(dataset: Samples, batches: Any, workers: int, collate: Collate, pin: bool) -> Iterator[Any]:
    """Yield collated batches of samples; an error in a worker process is raised here as one line.

    Args:
        dataset: the samples.
        batches: keys of each batch.
        workers: loader processes; 0 loads in this process.
        collate: function from samples to a batch.
        pin: copy batches to pinned memory.
    """
    context = multiprocessing.get_context("spawn")
    begun = context.RawArray("b", workers) if workers else []
    loader: DataLoader[Any] = DataLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_collate_or_error, collate=collate),
        pin_memory=pin,
        worker_init_fn=partial(set_up_worker, begun),
        multiprocessing_context=context if workers else None,
        generator=torch.Generator(),  # the loader's own draws must not touch the global generator
    )
    with Workers(loader, begun) if workers else nullcontext(iter(loader)) as stream:
        for batch in stream:
            if isinstance(batch, DataError):
                raise batch
            yield batch


def train_batches(
    dataset: Samples,
    order: BatchOrder,
    *,
    start: int = 0,
    every: int = 1,
    workers: int = 0,
    collate: Collate = collate,
    pin: bool = False,
) -> Iterator[Any]:
    """Yield batch number ``start`` and every ``every``-th batch after it, without end.

    With several training processes, each loads its own batches.

    Raises:
        DataError: an image is missing or damaged; the message names it.
    """
    return load_batches(dataset, _Endless(order, start, every), workers, collate, pin)
