"""Image folders with one subfolder per class, the layout of ImageNet: FOLDER/CLASS/*.jpg.

The augmentation of an image is a pure function of the seed and its key, as in :mod:`tldet.data.dataset`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tldet.data.image_formats import EXTENSIONS
from tldet.data.images import read_image
from tldet.data.loader import SampleKey, as_pixels
from tldet.data.split_names import SPLIT_NAMES
from tldet.data.transforms import LabeledSample, Pipeline
from tldet.errors import ConfigError, DataError
from tldet.registry import DATASETS
from tldet.structures.batch import LabeledBatch
from tldet.system.inputs import entry_kind, is_folder, real_path
from tldet.text import counted

log = logging.getLogger(__name__)
_NAMED = 5  # classes in a message


class LabeledImage(NamedTuple):
    """Image of a batch: image (3, H, W) uint8 RGB, its label, and its path in the folder."""

    image: Tensor
    label: int
    name: str


@DATASETS.register_module()
class ImageFolderDataset(Dataset[LabeledImage]):
    """Images of a folder with one subfolder per class; a class folder may have subfolders.

    Args:
        folder: folder that contains the class folders.
        transforms: see :class:`~tldet.data.transforms.Pipeline`; the output of all images must have one size.
        classes: class names of the model; None takes the sorted names of the class folders.
        part: "all" images, or without ("train") or only with ("val") the held-out images.
        holdout: fraction of each class that is held out; the same images for the same seed.
        seed: random seed of the held-out images and of augmentation.

    Raises:
        DataError: the folder is missing or has no class folders, or a class has no images; the message names it.
        ValueError: ``holdout`` is not a fraction.
    """

    def __init__(
        self,
        folder: str,
        transforms: Sequence[Mapping[str, Any]] = (),
        *,
        classes: Sequence[str] | None = None,
        part: Literal["all", "train", "val"] = "all",
        holdout: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not 0 < holdout < 1:
            raise ValueError(f"holdout={holdout} must lie between 0 and 1")
        self.folder, self.seed = Path(folder), seed
        self.pipeline = Pipeline(transforms)
        if self.pipeline.extra:
            raise ConfigError("transforms: a transform with extra samples needs objects; image folders have none")
        found = scan(self.folder)
        self.class_names = tuple(found) if classes is None else tuple(classes)
        _check_classes(self.folder, found, self.class_names, chosen=classes is not None)
        self.names = [name for one in self.class_names for name in found.get(one, [])]
        counts = [len(found.get(one, [])) for one in self.class_names]
        self.labels = np.repeat(np.arange(len(counts)), counts)
        if part != "all":
            held = held_out(self.labels, holdout, seed)
            self._keep(held if part == "val" else ~held)
        _log_counts(self.folder, self.labels, len(self.class_names), part)

    def _keep(self, rows: NDArray[np.bool_]) -> None:
        self.names = [name for name, kept in zip(self.names, rows.tolist(), strict=True) if kept]
        self.labels = self.labels[rows]
        if not self.names:
            raise DataError(f"{self.folder}: no class has two images, so no image can be held out for validation")

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(I, 2) relative (height, width); equal, because the transforms return all images at one size."""
        return np.ones((len(self), 2), np.int32)

    @property
    def input_sizes(self) -> NDArray[np.int32]:
        """(I, 2) relative (height, width) after the transforms, equal for all images."""
        return self.sizes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | SampleKey) -> LabeledImage:
        """Return the image of a key; a plain index stands for epoch 0 and batch 0."""
        epoch, number, batch = SampleKey(0, key, 0) if isinstance(key, int) else key
        image = read_image(self.folder / self.names[number])
        sample = LabeledSample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
        sample = self.pipeline(sample, (self.seed, epoch, number), (self.seed, epoch, batch, 1))
        pixels = as_pixels(sample.image)
        return LabeledImage(pixels, int(self.labels[number]), self.names[number])


def find_train_val(folder: Path) -> tuple[Path, Path | None]:
    """Return the training and validation folders: ``train`` and ``val`` (or ``valid``, ...) in ``folder``.

    Without ``train``, ``folder`` itself contains the class folders. If there is no validation folder, it is None, and
    images must be held out.

    Raises:
        DataError: there is no such folder, or a validation folder but no training folder.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder")
    found = {
        kind: next((folder / n for n in names if is_folder(folder / n)), None) for kind, names in SPLIT_NAMES.items()
    }
    held = found["val"] or found["test"]
    if found["train"] is None and held is not None:
        raise DataError(f"{folder}: has a folder {held.name} but no folder train")
    return found["train"] or folder, held


def scan(folder: Path) -> dict[str, list[str]]:
    """Return the images of each class folder as sorted paths relative to ``folder``; hidden folders are skipped.

    Raises:
        DataError: the folder or a class folder cannot be read, or there is no class folder.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name[0] != "."]
        below = sorted(entry.name for entry in found if entry_kind(entry) == "folder")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be read: {getattr(error, 'strerror', error)}") from None
    if not below:
        raise DataError(f"{folder}: has no class folders (looked for {folder.name}/CLASS/*.jpg)")
    return {name: sorted(_images(folder, name)) for name in below}


def _images(folder: Path, name: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None

    root = real_path(folder / name)
    seen = {root, *root.parents}
    for path, below, files in os.walk(folder / name, onerror=refuse, followlinks=True):
        links = {real_path(Path(path, one)): one for one in sorted(below, reverse=True)}
        below[:] = [name for real, name in links.items() if real not in seen]  # links may form a loop
        seen.update(links)
        inside = Path(path).relative_to(folder)
        yield from ((inside / file).as_posix() for file in files if Path(file).suffix.lower() in EXTENSIONS)


def _check_classes(folder: Path, found: Mapping[str, Sequence[str]], classes: Sequence[str], *, chosen: bool) -> None:
    """Check the class folders: training needs images of every class; validation must not have further classes."""
    empty = [name for name in classes if not found.get(name)]
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise DataError(f"{folder}: {_named(unknown, len(found))} not among the classes of the model")
    if len(classes) < 2:
        raise DataError(f"{folder}: has one class only ({classes[0]}); classification needs at least 2")
    if len(empty) == len(classes):
        raise DataError(f"{folder}: none of its {len(classes)} class folders has an image")
    if empty and chosen:
        log.warning("%s: %s without images, not evaluated", folder, _named(empty, len(classes)))
    elif empty:
        raise DataError(f"{folder}: {_named(empty, len(classes))} without images; add images or remove the folders")


def _named(names: Sequence[str], count: int) -> str:
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} of {counted(count, 'class folder')} ({shown})"


def _log_counts(folder: Path, labels: NDArray[np.int64], classes: int, part: str) -> None:
    counts = np.bincount(labels, minlength=classes)
    use = {"all": "", "train": " for training", "val": " held out for validation"}[part]
    found = counted(int(np.count_nonzero(counts)), "class", "classes")
    least, most = counts[counts > 0].min(), counts.max()
    log.info("%s: %s%s in %s, %d to %d each", folder, counted(len(labels), "image"), use, found, least, most)


def held_out(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Return (I,) bool: True for held-out images, a fraction ``share`` of each class, at least one of two or more.

    Args:
        labels: (I,) label of each image.
        share: fraction, above 0 and below 1.
        seed: random seed.
    """
    random = np.random.default_rng([seed, 7])
    held = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        held[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return held


def collate_whole(samples: Sequence[LabeledImage]) -> list[LabeledBatch]:
    """Stack images of one size into a single batch for evaluation.

    Raises:
        DataError: the sizes differ.
    """
    return [collate_images(samples)]


def collate_images(samples: Sequence[LabeledImage]) -> LabeledBatch:
    """Stack images of one size.

    Raises:
        DataError: the sizes differ.
    """
    sizes = sorted({(int(s.image.shape[2]), int(s.image.shape[1])) for s in samples})
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for width, height in sizes[:3])
        raise DataError(f"transforms return different sizes ({shown}); end with RandomResizedCrop or CenterCrop")
    labels = torch.tensor([s.label for s in samples])
    return LabeledBatch(torch.stack([s.image for s in samples]), labels, [s.name for s in samples])
