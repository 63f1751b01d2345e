"""The order of samples, and batches of them from any number of workers.

Batch number s is the same whatever the number of workers and wherever training was taken up again.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from tldet.data.coco import Sample, SampleKey
from tldet.errors import ConfigError, DataError
from tldet.structures import Batch

DIVISOR = 32  # the coarsest stride of a backbone
Collate = Callable[[Sequence[Any]], Any]  # samples to a batch


class Samples(Protocol):
    """What batches are made of: a data set that says the (height, width) of its pictures."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey, /) -> Any: ...


@dataclass(frozen=True)
class LoaderSettings:
    """The ``data.loader`` section of a config.

    Attributes:
        batch_size: pictures in a training batch.
        eval_batch_size: pictures in a batch of validation.
        workers: processes that load; 0 loads in the main one.
        group_aspect: keep wide and tall pictures apart.

    Raises:
        ConfigError: a number is too small.
    """

    batch_size: int = 4
    eval_batch_size: int = 4
    workers: int = 0
    group_aspect: bool = True

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"data.loader.{name} must be at least {least}, not {getattr(self, name)}")


class BatchOrder:
    """Which samples make which batch: a pure function of (seed, epoch).

    Args:
        sizes: (I, 2) (height, width) of every sample.
        batch_size: samples a batch; the last batch of an epoch may be smaller when not shuffled.
        seed: what the order is drawn from.
        shuffle: draw a new order each epoch, and leave out the samples that fill no batch in it.
        group_aspect: keep wide and tall pictures apart, so that batches are padded little.
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
        """The batches of one epoch, each a list of positions."""
        if not self.shuffle:
            return [
                list(range(start, min(start + self.batch_size, self.count)))
                for start in range(0, self.count, self.batch_size)
            ]
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(self.count)[: len(self) * self.batch_size]  # the epoch's remainder is of any shape
        wide, tall = order[~self.tall[order]], order[self.tall[order]]
        # What is left over of each shape meets in a mixed batch: no sample is lost but the epoch's remainder.
        rest = np.concatenate([group[len(group) - len(group) % self.batch_size :] for group in (wide, tall)])
        flat = [group[: len(group) - len(group) % self.batch_size] for group in (wide, tall)]
        rows = np.concatenate([*flat, rest]).reshape(-1, self.batch_size)
        return [batch.tolist() for batch in rows[random.permutation(len(rows))]]


class _Endless(Sampler[list[SampleKey]]):
    """Batches of keys, number ``start`` and each ``every``-th behind it, for ever."""

    def __init__(self, order: BatchOrder, start: int, every: int) -> None:
        self.order, self.start, self.every = order, start, every

    def __iter__(self) -> Iterator[list[SampleKey]]:
        drawn = -1
        batches: list[list[int]] = []
        for place in itertools.count(self.start, self.every):
            epoch, number = divmod(place, len(self.order))
            if epoch != drawn:
                drawn, batches = epoch, self.order.epoch(epoch)
            yield [SampleKey(epoch, position, number) for position in batches[number]]


class _Surviving(Dataset[Any]):
    """Hands a broken sample's error to the main process as a value, so that it arrives as one line."""

    def __init__(self, dataset: Samples) -> None:
        self.dataset = dataset

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def collate(samples: Sequence[Sample], divisor: int = DIVISOR) -> Batch:
    """Pad pictures at the right and the bottom with zeros to one size, a multiple of ``divisor``; channels lie last."""
    sizes = [(int(s.image.shape[1]), int(s.image.shape[2])) for s in samples]
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    images = torch.zeros(len(samples), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for row, sample in enumerate(samples):
        images[row, :, : sizes[row][0], : sizes[row][1]] = sample.image
    return Batch(images, sizes, [s.target for s in samples], [s.original_size for s in samples])


def _collate_or_error(samples: Sequence[Any], collate: Collate) -> Any:
    try:
        return next((s for s in samples if isinstance(s, DataError)), None) or collate(samples)
    except DataError as error:
        return error


def _calm_worker(_: int) -> None:
    """A worker shares its cores with the model: one thread each, no matter what the libraries would take."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _loader(dataset: Samples, batches: Any, workers: int, collate: Collate, pin: bool) -> Iterator[Any]:
    loader = DataLoader(
        _Surviving(dataset),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_collate_or_error, collate=collate),
        pin_memory=pin,
        worker_init_fn=_calm_worker,
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator(),  # the loader's own draws must not touch the global generator
    )
    for batch in loader:
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
    """Batches without end: number ``start`` and each ``every``-th behind it (the others are other processes').

    Raises:
        DataError: a picture is missing or broken; named.
    """
    return _loader(dataset, _Endless(order, start, every), workers, collate, pin)


def eval_batches(
    dataset: Samples, batch_size: int, *, workers: int = 0, collate: Collate = collate, pin: bool = False
) -> Iterator[Any]:
    """Every sample once, those of like shape together so that little is padded."""
    ratio = dataset.sizes[:, 0] / dataset.sizes[:, 1]
    places = np.argsort(ratio, kind="stable").tolist()
    batches = [places[i : i + batch_size] for i in range(0, len(places), batch_size)]
    return _loader(dataset, batches, workers, collate, pin)
