"""User datasets as COCO JSON: their annotations in a file, in which classes and images are then selected.

``tldet extend`` and ``tldet fewshot`` combine and reduce annotation files. The images stay in the user's dataset:
``CsvDataset_1a2b3c4d/12`` as a file name is image 12 of the dataset with this name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.partial_labels import LABELED
from tldet.config import build
from tldet.config.build import check_interface
from tldet.config.check import parameters
from tldet.data.custom_dataset import CustomDataset
from tldet.data.dataset import CocoDataset
from tldet.data.layouts import Split
from tldet.data.sample_checks import ignore_flags, sample_problem
from tldet.data.transforms import Transforms
from tldet.errors import ConfigError, DataError
from tldet.plugins import lookup
from tldet.registry import DATASETS
from tldet.runtime.images import Reduced
from tldet.structures import rle
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.output import write_json
from tldet.text import counted

Sources = Mapping[str, Mapping[str, Any]]  # config sections of user datasets by name
LOADER_KEYS = ("transforms", "subset")  # keys of every dataset that its class does not take


@DATASETS.register_module()
class RelabeledDataset(CocoDataset):
    """Images of user datasets, with the objects of a COCO JSON; further images are files, as in :class:`CocoDataset`.

    Args:
        annotations: the JSON; see :func:`write_annotations`.
        images: image folder of the other images.
        transforms: see :class:`~tldet.data.transforms.Pipeline`.
        sources: config sections of the user datasets by name.
        settings: further settings of :class:`CocoDataset`.

    Raises:
        DataError: the JSON is wrong, or names an image that its dataset does not have.
    """

    def __init__(
        self, annotations: str, images: str, transforms: Transforms = (), *, sources: Sources, **settings: Any
    ) -> None:
        super().__init__(annotations, images, transforms, **settings)
        seed = int(settings.get("seed", 0))
        self.sources = {name: build_user_dataset(one, seed, f"sources.{name}") for name, one in sources.items()}
        for name in self.file_names:
            if (found := self._source(name)) is not None and found[1] >= len(self.sources[found[0]]):
                images = counted(len(self.sources[found[0]]), "image")
                raise DataError(
                    f"{annotations}: names {name}, but {found[0]} has {images} now; its data has changed, start again "
                    "in another output directory"
                )

    def _source(self, file_name: str) -> tuple[str, int] | None:
        """Return the dataset and position of an image; None for a file."""
        folder, number = PurePosixPath(file_name).parent.name, PurePosixPath(file_name).name
        return (folder, int(number)) if folder in self.sources and number.isdecimal() else None

    def _read(self, position: int, bounds: Size | None) -> Reduced:
        if (found := self._source(self.file_names[position])) is None:
            return super()._read(position, bounds)
        image, target = self.sources[found[0]].load(found[1])
        problem = sample_problem(image, target, masks=False)
        stated = tuple(self.index.sizes[position].tolist())
        if problem is None and image.shape[:2] != stated:
            problem = f"has height and width {image.shape[:2]}, but {stated} in {self.index.path}"
        if problem:
            raise DataError(f"{found[0]}: image {found[1]}: {problem}")
        return Reduced(np.ascontiguousarray(image))

    def check_images(self) -> None:
        """Check the images that are files; those of user datasets are checked when they are loaded."""
        inside = np.array([self._source(name) is not None for name in self.file_names], np.bool_)
        loaded, self.positions = self.positions[inside[self.positions]], self.positions[~inside[self.positions]]
        super().check_images()
        self.positions = np.sort(np.concatenate([loaded, self.positions]))


def build_user_dataset(section: Mapping[str, Any], seed: int, path: str) -> Any:
    """Build a user dataset from its own keys; keys that the loader uses are left out.

    Args:
        section: config section.
        seed: random seed, for a dataset that takes one.
        path: dotted key of the section, for messages.

    Raises:
        ConfigError: the dataset is not registered, a key is wrong, or its interface is incomplete.
        DataError: a file cannot be read.
    """
    kind = section["type"]
    if (target := lookup(DATASETS, kind)) is None:
        raise ConfigError(f"{path}: no dataset is called {kind!r}; external code needs --import PACKAGE")
    known = parameters(target)
    skipped = {*LOADER_KEYS, *({"masks"} - known.keys())}
    own = {key: value for key, value in section.items() if key not in skipped}
    supplied = {"seed": seed} if "seed" in known and "seed" not in own else {}
    try:
        dataset = build(DATASETS, own, path, **supplied)
    except OSError as error:
        raise DataError(f"{path}: dataset {kind}: {error.filename or ''}: {error.strerror or error}") from None
    check_interface(dataset, "detection dataset", f"{path}: dataset {kind}" if path else kind)
    return dataset


def coco_type(sources: Sources) -> dict[str, Any]:
    """Return the ``type`` of a config section of COCO JSON, and its ``sources`` if there are user datasets."""
    if not sources:
        return {"type": "CocoDataset"}
    return {"type": "RelabeledDataset", "sources": {name: dict(one) for name, one in sources.items()}}


def source_name(section: Mapping[str, Any]) -> str:
    """Return the name of a user dataset in file names: its type, and a hash of its settings."""
    own = {key: value for key, value in section.items() if key not in (*LOADER_KEYS, "masks")}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{section['type']}_{digest}"


def write_annotations(dataset: CustomDataset, name: str, path: Path) -> Split:
    """Write the annotations of a user dataset as COCO JSON for :class:`RelabeledDataset`.

    Args:
        dataset: the dataset.
        name: its name in ``file_name``, see :func:`source_name`.
        path: output file; images are named relative to its folder.

    Raises:
        OutputError: the file cannot be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    ids, sizes = dataset.original.category_ids, dataset.original.sizes
    for position, target in zip(dataset.positions.tolist(), dataset.targets(), strict=True):
        height, width = sizes[position].tolist()
        image: dict[str, Any] = {
            "id": target.image_id,
            "file_name": f"{name}/{position}",
            "width": width,
            "height": height,
        }
        if target.labeled is not None:
            image[LABELED] = [key for key, there in zip(ids, target.labeled.tolist(), strict=True) if there]
        images.append(image)
        for one in _records(target, ids):
            annotations.append({"id": len(annotations) + 1, "image_id": target.image_id, **one})
    categories = [{"id": key, "name": one} for key, one in zip(ids, dataset.original.class_names, strict=True)]
    write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    return Split(path, path.parent)


def _records(target: Target, ids: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a target as records of a COCO JSON without ids."""
    boxes: NDArray[np.float64] = target.boxes.cpu().numpy().astype(np.float64)
    rows = zip(boxes.tolist(), target.labels.tolist(), ignore_flags(target).tolist(), strict=True)
    for row, ((x0, y0, x1, y1), label, ignore) in enumerate(rows):
        box = [x0, y0, x1 - x0, y1 - y0]
        record: dict[str, Any] = {
            "category_id": ids[label],
            "bbox": box,
            "iscrowd": int(ignore),
            "area": box[2] * box[3],
        }
        if target.masks is not None:
            mask = target.masks[row].cpu().numpy()
            record |= {"segmentation": rle.encode(mask), "area": int(mask.astype(np.bool_).sum())}
        yield record
