"""Datasets from outside tldet, adapted to the loader, the checks and the evaluator."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tldet.data.dataset import DetectionDataset, SampleDataset
from tldet.data.index import AnnotationIndex
from tldet.data.sample_checks import ignore_flags, sample_problem, target_problem
from tldet.data.settings import DatasetOptions, SubsetSettings
from tldet.data.subsets import stratified_order, subset_size
from tldet.data.transforms import LabeledSample
from tldet.errors import DataError
from tldet.structures.image import ImageArray, Size
from tldet.structures.target import Target
from tldet.text import counted

log = logging.getLogger(__name__)


class CustomDataset(SampleDataset):
    """Adapter from a :class:`~tldet.data.dataset.DetectionDataset` to samples.

    All targets are read and checked once, at construction. Classes are matched to those of a model by name.

    Args:
        dataset: the dataset.
        options: see :class:`DatasetOptions`.
        name: name in messages.
        classes: class names of the model; None takes those of the dataset.
        seed: random seed of augmentation.

    Raises:
        DataError: a target or a size is invalid; the message names the image.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        options: DatasetOptions,
        *,
        name: str,
        classes: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(options.transforms, seed)
        self.dataset, self.masks, self.name = dataset, options.masks, name
        self.original = _read_index(dataset, name, masks=options.masks)
        self.index = self.original if classes is None else self.original.for_classes(classes)
        known = {class_name: label for label, class_name in enumerate(self.index.class_names)}
        self._labels = np.array([known.get(name, -1) for name in self.original.class_names], np.int64)
        self.positions = np.arange(len(self.index))
        for note in self.index.notes:
            log.warning("%s: %s", name, note)

    @property
    def groups(self) -> set[Any]:
        """Groups of the images that are used; empty if the dataset has none."""
        groups = getattr(self.dataset, "groups", None)
        return set() if groups is None else {groups[position] for position in self.positions.tolist()}

    def targets(self) -> Iterator[Target]:
        """Yield the target of each image, with the dataset's own labels, for the evaluator."""
        for position in self.positions.tolist():
            if self.masks:
                target = self.dataset.load(position)[1]
            else:
                rows = self.original.rows(position)
                boxes, labels, ignore = (
                    torch.from_numpy(np.array(column[rows]))
                    for column in (self.original.boxes, self.original.labels, self.original.crowd)
                )
                target = Target(boxes, labels, ignore)
            labeled = self.original.labeled
            target.image_id = int(self.original.image_ids[position])
            target.labeled = None if labeled is None else torch.from_numpy(np.array(labeled[position]))
            yield target

    def has_mask(self) -> NDArray[np.bool_]:
        """Return (A,) bool: True for objects of :attr:`index` that have a mask."""
        return np.full(len(self.index.boxes), self.masks)

    def check_images(self) -> None:
        """Do nothing: targets have been checked, and images are checked when they are loaded."""

    def _read_sample(self, position: int) -> LabeledSample:
        image, target = self.dataset.load(position)
        if problem := sample_problem(image, target, masks=self.masks) or self._change(image, target, position):
            raise DataError(f"{self.name}: image {position}: {problem}")
        labels = self._labels[np.asarray(target.labels, np.int64)]
        kept = labels >= 0
        return LabeledSample(
            np.ascontiguousarray(image),
            _array(target.boxes, np.float32)[kept],
            np.flatnonzero(kept),
            ignore_flags(target)[kept],
            _array(target.masks, np.uint8)[kept] if self.masks else None,
            labels=labels[kept],
            image_id=int(self.index.image_ids[position]),
        )

    def _change(self, image: ImageArray, target: Target, position: int) -> str | None:
        """Describe how an image differs from the annotations read at the start; None if it does not."""
        stated = tuple(self.index.sizes[position].tolist())
        if image.shape[:2] != stated:
            return f"has height and width {image.shape[:2]}, but sizes states {stated}"
        rows = self.original.rows(position)
        if len(target) != rows.stop - rows.start:
            return f"has {counted(len(target), 'object')}, but {rows.stop - rows.start} at the start of the run"
        return None


def restrict(dataset: Any, subset: SubsetSettings) -> None:
    """Restrict a dataset to a subset of its images."""
    chosen = stratified_order(dataset.index, subset.seed)[: subset_size(len(dataset.index), subset.fraction)]
    dataset.positions = np.intersect1d(dataset.positions, chosen)


@dataclass
class _Columns:
    """Annotations of a dataset, collected image by image."""

    sizes: list[Size] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)


def _read_index(dataset: DetectionDataset, name: str, *, masks: bool) -> AnnotationIndex:
    """Read all targets and sizes of a dataset and check them."""
    names = _class_names(dataset, name)
    columns = _Columns()
    for position, (size, target) in enumerate(_annotations(dataset, name)):
        problem = target_problem(target, size, masks=False) or _label_problem(target, len(names))
        if masks and target.masks is None:
            problem = problem or "target.masks is None, but masks=True"
        if problem:
            raise DataError(f"{name}: image {position}: {problem}")
        columns.sizes.append(size)
        columns.ids.append(int(target.image_id))
        columns.targets.append(replace(target, masks=None))
    if not columns.sizes:
        raise DataError(f"{name}: has no image")
    return _index(columns, names, name)


def _class_names(dataset: DetectionDataset, name: str) -> tuple[str, ...]:
    names = tuple(dataset.class_names)
    if not names or not all(isinstance(one, str) for one in names) or len(set(names)) < len(names):
        raise DataError(f"{name}: class_names must be one or more different strings, not {list(names)[:8]!r}")
    return names


def _label_problem(target: Target, classes: int) -> str | None:
    labels = np.asarray(target.labels)
    if labels.dtype.kind not in "iu":
        return f"target.labels must be integers, not {labels.dtype}"
    if target.labeled is not None and tuple(target.labeled.shape) != (classes,):
        return f"target.labeled must be ({classes},), not {tuple(target.labeled.shape)}"
    wrong = labels[(labels < 0) | (labels >= classes)]
    return f"label {wrong[0]} is not in 0..{classes - 1}" if len(wrong) else None


def _annotations(dataset: DetectionDataset, name: str) -> Iterator[tuple[Size, Target]]:
    """Yield the size and the target of each image, without loading it if the dataset has both."""
    target, sizes = getattr(dataset, "target", None), getattr(dataset, "sizes", None)
    if callable(target) and sizes is not None:
        stated = np.asarray(sizes() if callable(sizes) else sizes).reshape(-1, 2)
        if len(stated) != len(dataset):
            raise DataError(f"{name}: sizes has {counted(len(stated), 'row')} for {counted(len(dataset), 'image')}")
        for position, (height, width) in enumerate(stated.tolist()):
            yield (int(height), int(width)), _checked(target(position), name, position)
        return
    log.info("%s: loading %s for annotations and sizes", name, counted(len(dataset), "image"))
    for position in range(len(dataset)):
        loaded: Any = dataset.load(position)
        if not isinstance(loaded, tuple) or len(loaded) != 2:
            raise DataError(f"{name}: load({position}) must return image, target, not {type(loaded).__name__}")
        image, found = loaded[0], _checked(loaded[1], name, position)
        if problem := sample_problem(image, found, masks=False):
            raise DataError(f"{name}: image {position}: {problem}")
        yield (int(image.shape[0]), int(image.shape[1])), found


def _checked(target: Any, name: str, position: int) -> Target:
    if not isinstance(target, Target):
        raise DataError(f"{name}: image {position}: the target must be a tldet Target, not {type(target).__name__}")
    return target


def _array(values: Any, dtype: Any) -> NDArray[Any]:
    """Copy a tensor to an array."""
    return np.array(values.detach().cpu().numpy(), dtype)


def _image_ids(ids: Sequence[int], name: str) -> NDArray[np.int64]:
    """Return the ids of the images; if all are 0, the images are numbered from 1."""
    if not any(ids):
        return np.arange(1, len(ids) + 1)
    if len(set(ids)) < len(ids):
        twice = next(key for number, key in enumerate(ids) if key in ids[:number])
        raise DataError(f"{name}: image_id {twice} occurs twice; leave all ids at 0, or make them unique")
    return np.array(ids, np.int64)


def _index(columns: _Columns, names: tuple[str, ...], name: str) -> AnnotationIndex:
    targets = columns.targets
    counts = np.array([len(one) for one in targets])
    boxes = np.concatenate([np.asarray(one.boxes, np.float32).reshape(-1, 4) for one in targets])
    total = len(boxes)
    stated = [one.labeled for one in targets]
    every = torch.ones(len(names), dtype=torch.bool)
    labeled = None
    if any(one is not None for one in stated):
        labeled = np.stack([np.asarray(every if one is None else one, np.bool_) for one in stated])
    return AnnotationIndex(
        path=Path(name),
        class_names=names,
        category_ids=tuple(range(1, len(names) + 1)),
        file_names=[""] * len(targets),
        image_ids=_image_ids(columns.ids, name),
        sizes=np.array(columns.sizes, np.int32).reshape(-1, 2),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=boxes,
        labels=np.concatenate([np.asarray(one.labels, np.int64).reshape(-1) for one in targets]),
        crowd=np.concatenate([ignore_flags(one) for one in targets]),
        annotation_ids=np.arange(1, total + 1),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1, dtype=np.float64),
        file_rows=np.arange(total),
        spans=np.zeros(total + 1, np.int64),
        raw=np.zeros(0, np.uint8),
        labeled=labeled,
    )
