"""The order of samples, and batches of them from any number of workers.

Batch number s is the same whatever the number of workers and wherever training was taken up again.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from tldet.data.dataset import Sample, SampleKey
from tldet.data.workers import Workers, calm_worker, worker_count
from tldet.errors import ConfigError, DataError
from tldet.structures.batch import Batch
from tldet.structures.image import Size

DIVISOR = 32  # the coarsest stride of a backbone
LARGEST_WORKERS = 256  # processes of about 300 MB each; many more end a machine before the first step
Collate = Callable[[Sequence[Any]], Any]  # samples to a batch


class Samples(Protocol):
    """What batches are made of: a data set that says the (height, width) of its images."""

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width)."""
        ...

    @property
    def input_sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width) after the transforms, as far as known before they run."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey, /) -> Any: ...


@dataclass(frozen=True)
class LoaderSettings:
    """The ``data.loader`` section of a config.

    Attributes:
        batch_size: images in a training batch; "auto" measures the largest that fits on the GPU.
        eval_batch_size: images in a validation batch.
        workers: loader processes; 0 loads in the main process, "auto" chooses (see
            :func:`~tldet.data.workers.worker_count`).
        group_aspect: keep wide and tall images apart.

    Raises:
        ConfigError: a number is too small.
    """

    batch_size: int | Literal["auto"] = 4
    eval_batch_size: int = 4
    workers: int | Literal["auto"] = "auto"
    group_aspect: bool = True

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("eval_batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value != "auto" and value < least:
                raise ConfigError(f"data.loader.{name} must be at least {least}, not {value}")
        if self.workers != "auto" and self.workers > LARGEST_WORKERS:
            raise ConfigError(f"data.loader.workers must be at most {LARGEST_WORKERS}, not {self.workers}")

    def fixed_batch_size(self) -> int:
        """Return the batch size.

        Raises:
            ConfigError: it is still to be measured.
        """
        if self.batch_size == "auto":
            raise ConfigError("data.loader.batch_size='auto': is measured by `tldet train` and `tldet finetune` only")
        return self.batch_size

    def worker_count(self, device: torch.device) -> int:
        """Return the number of loader processes for a model on ``device``."""
        return worker_count(device.type) if self.workers == "auto" else self.workers


class BatchOrder:
    """Which samples make which batch: a pure function of (seed, epoch).

    Args:
        sizes: (I, 2) (height, width) of every sample.
        batch_size: samples a batch; the last batch of an epoch may be smaller when not shuffled.
        seed: what the order is drawn from.
        shuffle: draw a new order each epoch, and leave out the samples that fill no batch in it.
        group_aspect: keep wide and tall images apart, so that batches are padded little.
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


def padded_size(size: Size, divisor: int = DIVISOR) -> Size:
    """(height, width) rounded up to multiples of ``divisor``: the input size of an image that is alone in its batch."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def _size(sample: Sample) -> Size:
    return int(sample.image.shape[1]), int(sample.image.shape[2])


def collate(samples: Sequence[Sample], divisor: int = DIVISOR) -> Batch:
    """Pad images with zeros at the right and bottom to one size, a multiple of ``divisor``, in channels-last memory."""
    sizes = [_size(sample) for sample in samples]
    height, width = (max(sides) for sides in zip(*(padded_size(size, divisor) for size in sizes), strict=True))
    images = torch.zeros(len(samples), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
    for row, sample in enumerate(samples):
        images[row, :, : sizes[row][0], : sizes[row][1]] = sample.image
    return Batch(images, sizes, [s.target for s in samples], [s.original_size for s in samples])


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
        size = padded_size(_size(sample))
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


def _collate_or_error(samples: Sequence[Any], collate: Collate) -> Any:
    try:
        return next((s for s in samples if isinstance(s, DataError)), None) or collate(samples)
    except DataError as error:
        return error


def _loader(dataset: Samples, batches: Any, workers: int, collate: Collate, pin: bool) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    begun = context.RawArray("b", workers) if workers else []
    loader: DataLoader[Any] = DataLoader(
        _Surviving(dataset),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(_collate_or_error, collate=collate),
        pin_memory=pin,
        worker_init_fn=partial(calm_worker, begun),
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
    """Batches without end: number ``start`` and each ``every``-th behind it (the others are other processes').

    Raises:
        DataError: an image is missing or broken; named.
    """
    return _loader(dataset, _Endless(order, start, every), workers, collate, pin)


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
    return itertools.chain.from_iterable(_loader(dataset, batches, workers, collate, pin))
