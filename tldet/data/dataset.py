"""Datasets of images with objects: the protocol, and samples augmented as a pure function of the seed and their key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tldet.data.images import fitted_size
from tldet.data.index import AnnotationIndex
from tldet.data.steps import LabeledSample
from tldet.data.transforms import Pipeline
from tldet.structures.image import ImageArray, Size
from tldet.structures.target import Target


@runtime_checkable
class DetectionDataset(Protocol):
    """What a dataset must have; registered in ``tldet.registry.DATASETS``, it can be named in a config.

    The loader draws the order, seeds and applies the transforms, and makes batches; the evaluator takes the targets.
    No file is needed. These are used if a dataset has them:

    - ``target(i) -> Target``: the annotations without the image; else every image is loaded once at the start.
    - ``sizes``: (N, 2) (height, width) of the images; else, too, every image is loaded once.
    - ``groups``: (N,) group of each image (a video, a patient), kept together when a dataset is divided.
    """

    @property
    def class_names(self) -> Sequence[str]:
        """Name of each label."""
        ...

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def load(self, index: int, /) -> tuple[ImageArray, Target]:
        """Return an image (H, W, 3) uint8 RGB and its target, boxes in pixels of that image."""
        ...


class SampleKey(NamedTuple):
    """Which sample, and what its augmentation is drawn from: the epoch, and the number of its batch in the epoch."""

    epoch: int
    position: int
    batch: int


def as_pixels(image: ImageArray) -> Tensor:
    """(3, H, W) uint8 of a (H, W, 3) image; the same memory where that is contiguous."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


@dataclass
class Sample:
    """One image on its way into a batch: image (3, H, W) uint8 RGB, its target, its (height, width) as stored."""

    image: Tensor
    target: Target
    original_size: Size


class SampleDataset(Dataset[Sample]):
    """Base class of datasets as the loader sees them: samples by key, transformed.

    Subclasses read their annotations into :attr:`index`.

    Attributes:
        index: the annotations, with the classes of the model.
        positions: (I,) positions in the index of the images that are used.
        partial: images may be annotated for some of the classes only.

    Args:
        transforms: transforms for :class:`~tldet.data.transforms.Pipeline`.
        seed: random seed of augmentation.
    """

    index: AnnotationIndex
    partial = True

    def __init__(self, transforms: Sequence[Mapping[str, Any]], seed: int) -> None:
        self.pipeline = Pipeline(transforms)
        self.seed = seed
        self.positions: NDArray[np.int64] = np.zeros(0, np.int64)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return self.index.class_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The dataset's own category id of each label; -1 for a class that it lacks."""
        return self.index.category_ids

    @property
    def all_sizes(self) -> NDArray[np.int32]:
        """(height, width) of every image, used or not."""
        return self.index.sizes

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width) of every image."""
        return self.all_sizes[self.positions]

    @property
    def input_sizes(self) -> NDArray[np.int32]:
        """(I, 2) (height, width) of every image after ``Resize`` as the first transform; later ones may change it."""
        bounds = self.pipeline.bounds
        if bounds is None:
            return self.sizes
        fitted = [fitted_size((height, width), *bounds) for height, width in self.sizes.tolist()]
        return np.array(fitted, np.int32).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The sample at a position; its augmentation is that of the given epoch and batch."""
        epoch, number, batch = SampleKey(0, key, 0) if isinstance(key, int) else key
        position = int(self.positions[number])
        sample, whole = self._read_sample(position)
        sample = self.pipeline(sample, (self.seed, epoch, number), (self.seed, epoch, batch, 1))
        return Sample(as_pixels(sample.image), self._target_of(sample, position), whole)

    def _read_sample(self, position: int) -> tuple[LabeledSample, Size]:
        """Read an image with its objects; return its size as stored too."""
        raise NotImplementedError

    def _labeled(self, position: int) -> Tensor | None:
        """Return (K,) bool if the image is not annotated for all classes."""
        labeled = self.index.labeled
        if labeled is None or not self.partial or labeled[position].all():
            return None
        return torch.from_numpy(np.array(labeled[position]))

    def _target_of(self, sample: LabeledSample, position: int) -> Target:
        labels = sample.labels_of(np.arange(len(sample.boxes)))
        assert labels is not None
        return Target(
            boxes=torch.from_numpy(np.ascontiguousarray(sample.boxes, np.float32)),
            labels=torch.from_numpy(labels),
            ignore=torch.from_numpy(sample.ignore),
            image_id=sample.image_id,
            masks=None if sample.masks is None else torch.from_numpy(sample.masks),
            labeled=self._labeled(position),
        )
