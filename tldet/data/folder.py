"""Images sorted into one folder a class, as ImageNet is laid out: FOLDER/CLASS/*.jpg.

An image's augmentation is a pure function of the seed and its key, as in :mod:`tldet.data.coco`.
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
    """One image on its way into a batch: image (3, H, W) uint8 RGB, its label, its path in the folder."""

    image: Tensor
    label: int
    name: str


@DATASETS.register_module()
class ImageFolderDataset(Dataset[LabeledImage]):
    """Images of a folder with one sub-folder a class; images may lie deeper in it.

    Args:
        folder: what holds the class folders.
        transforms: steps for :class:`~tldet.data.transforms.Pipeline`; all images must leave them at one size.
        classes: names of the model's classes; None takes the folder's, sorted.
        part: "all" images, or those to "train" on or to "measure" on when some are held out.
        holdout: share of each class that is held out, the same images for the same seed.
        seed: what the split and the augmentation are drawn from.

    Raises:
        DataError: the folder is missing, holds no class folders, or a class has no images; it is named.
        ValueError: ``holdout`` is no share.
    """

    def __init__(
        self,
        folder: str,
        transforms: Sequence[Mapping[str, Any]] = (),
        *,
        classes: Sequence[str] | None = None,
        part: Literal["all", "train", "measure"] = "all",
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
            self._keep(held if part == "measure" else ~held)
        _say_counts(self.folder, self.labels, len(self.class_names), part)

    def _keep(self, rows: NDArray[np.bool_]) -> None:
        self.names = [name for name, kept in zip(self.names, rows.tolist(), strict=True) if kept]
        self.labels = self.labels[rows]
        if not self.names:
            raise DataError(f"{self.folder}: no class has two images, so that none can be held out to measure on")

    @property
    def sizes(self) -> NDArray[np.int32]:
        """(I, 2) relative (height, width): images leave the transforms alike, no shape is kept apart."""
        return np.ones((len(self), 2), np.int32)

    @property
    def input_sizes(self) -> NDArray[np.int32]:
        """(I, 2) relative (height, width) after the transforms: the same for every image."""
        return self.sizes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | SampleKey) -> LabeledImage:
        """The image at a position; its augmentation is that of the given epoch and batch."""
        epoch, number, batch = SampleKey(0, key, 0) if isinstance(key, int) else key
        image = read_image(self.folder / self.names[number])
        sample = LabeledSample(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
        sample = self.pipeline(sample, (self.seed, epoch, number), (self.seed, epoch, batch, 1))
        pixels = as_pixels(sample.image)
        return LabeledImage(pixels, int(self.labels[number]), self.names[number])


def find_splits(folder: Path) -> tuple[Path, Path | None]:
    """The folders to train on and to measure on: ``train`` and ``val`` (or ``valid``, ...) in ``folder``.

    Without ``train`` the class folders lie in ``folder`` itself. None to measure on: a part has to be held out.

    Raises:
        DataError: there is no such folder, or one to measure on and none to train on.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder")
    found = {
        kind: next((folder / n for n in names if is_folder(folder / n)), None) for kind, names in SPLIT_NAMES.items()
    }
    measured = found["val"] or found["test"]
    if found["train"] is None and measured is not None:
        raise DataError(f"{folder}: holds {measured.name} but no train folder")
    return found["train"] or folder, measured


def scan(folder: Path) -> dict[str, list[str]]:
    """The images of every class folder, as sorted paths inside ``folder``; hidden folders are passed over.

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
        raise DataError(f"{folder}: holds no class folders (looked for {folder.name}/CLASS/*.jpg)")
    return {name: sorted(_images(folder, name)) for name in below}


def _images(folder: Path, name: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from None

    root = real_path(folder / name)
    seen = {root, *root.parents}
    for place, below, files in os.walk(folder / name, onerror=refuse, followlinks=True):
        links = {real_path(Path(place, one)): one for one in sorted(below, reverse=True)}
        below[:] = [one for real, one in links.items() if real not in seen]  # links may form a loop
        seen.update(links)
        inside = Path(place).relative_to(folder)
        yield from ((inside / file).as_posix() for file in files if Path(file).suffix.lower() in EXTENSIONS)


def _check_classes(folder: Path, found: Mapping[str, Sequence[str]], classes: Sequence[str], *, chosen: bool) -> None:
    """Every class to learn has images; one to measure may lack them, but there is none the model does not know."""
    empty = [name for name in classes if not found.get(name)]
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise DataError(f"{folder}: {_named(unknown, len(found))} not among the {len(classes)} classes trained on")
    if len(classes) < 2:
        raise DataError(f"{folder}: holds one class only ({classes[0]}); at least 2 are needed to tell apart")
    if len(empty) == len(classes):
        raise DataError(f"{folder}: none of its {len(classes)} class folders holds an image")
    if empty and chosen:
        log.warning("%s: %s without images, not measured", folder, _named(empty, len(classes)))
    elif empty:
        raise DataError(f"{folder}: {_named(empty, len(classes))} without images: fill the folders or remove them")


def _named(names: Sequence[str], count: int) -> str:
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} of {count} class folders ({shown})"


def _say_counts(folder: Path, labels: NDArray[np.int64], classes: int, part: str) -> None:
    counts = np.bincount(labels, minlength=classes)
    use = {"all": "", "train": " to train on", "measure": " held out to measure on"}[part]
    found = counted(int(np.count_nonzero(counts)), "class", "classes")
    least, most = counts[counts > 0].min(), counts.max()
    log.info("%s: %s%s in %s, %d to %d each", folder, counted(len(labels), "image"), use, found, least, most)


def held_out(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which images are held out: ``share`` of each class, at least one where it has two.

    Args:
        labels: (I,) of the images.
        share: above 0 and below 1.
        seed: what the draw is made from.
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
        raise DataError(f"images leave the transforms at sizes {shown}: end with RandomResizedCrop or CenterCrop")
    labels = torch.tensor([s.label for s in samples])
    return LabeledBatch(torch.stack([s.image for s in samples]), labels, [s.name for s in samples])
