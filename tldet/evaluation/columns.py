"""Ground truth and detections as columns, the input of the engines.

Images and classes are numbered by the rank of their ids in the dataset, and annotations by their position, from 1: some
engines treat id 0 as "no match" or need small positive ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import shortened
from tldet.errors import DataError
from tldet.structures.image import Size

Type = Literal["bbox", "segm"]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroundTruth:
    """A COCO dataset of I images, K classes and A annotations.

    Attributes:
        name: name in messages.
        type: "bbox" or "segm".
        image_ids: I ids in ascending order.
        sizes: (height, width) of each image, 0 if unknown.
        category_ids: K ids in ascending order.
        class_names: K names; equal names get their id appended.
        images: (A,) indices into ``image_ids``.
        categories: (A,) indices into ``category_ids``.
        boxes: (A, 4) xywh.
        areas: (A,) pixels.
        crowd: (A,) bool.
        segmentations: A polygons or RLEs for "segm", else None.
        labeled: (I, K) bool, True for classes annotated on an image; None if all are annotated on all images.
        file_names: I file names, None if unknown.
        unused: id of a dropped supercategory entry; its detections are left out.
        flagged: (A,) bool, True for objects with ``ignore`` or ``difficult``, which COCO metrics do not ignore; None
            if these flags were not read.
    """

    name: str
    type: Type
    image_ids: Sequence[int]
    sizes: Sequence[Size]
    category_ids: Sequence[int]
    class_names: Sequence[str]
    images: Ints
    categories: Ints
    boxes: Floats
    areas: Floats
    crowd: Bools
    segmentations: Sequence[Any] | None
    labeled: Bools | None = None
    file_names: Sequence[str | None] = ()
    unused: int | None = None
    flagged: Bools | None = None

    def image_rank(self) -> dict[Any, int]:
        """Return the rank of each image id."""
        return {key: rank for rank, key in enumerate(self.image_ids)}

    def category_rank(self) -> dict[Any, int]:
        """Return the rank of each category id."""
        return {key: rank for rank, key in enumerate(self.category_ids)}

    def on(self, image_ids: Iterable[int]) -> GroundTruth:
        """Return the ground truth of some images.

        Raises:
            DataError: an image id is unknown.
        """
        known = self.image_rank()
        chosen = sorted(set(image_ids))
        for image_id in chosen:
            if image_id not in known:
                raise DataError(f"{self.name}: has no image with id {image_id!r}, which is to be evaluated")
        if len(chosen) == len(known):
            return self
        ranks = [known[image_id] for image_id in chosen]
        rows, images = _keep(self.images, ranks, len(known))
        sizes, labeled = [self.sizes[rank] for rank in ranks], self.labeled
        labeled = None if labeled is None else labeled[ranks]
        names = [self.file_names[rank] for rank in ranks] if self.file_names else ()
        kept = self.take(rows)
        return replace(kept, image_ids=chosen, sizes=sizes, images=images, labeled=labeled, file_names=names)

    def take(self, rows: Ints) -> GroundTruth:
        """Return the ground truth with some of the annotations (rows)."""
        return replace(
            self,
            images=self.images[rows],
            categories=self.categories[rows],
            boxes=self.boxes[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            segmentations=_take(self.segmentations, rows),
            flagged=None if self.flagged is None else self.flagged[rows],
        )


@dataclass(frozen=True)
class Results:
    """D detections on the images and classes of a :class:`GroundTruth`.

    Attributes:
        images: (D,) ranks.
        categories: (D,) ranks.
        boxes: (D, 4) xywh.
        scores: (D,) finite.
        areas: (D,) pixels.
        segmentations: D compressed RLEs for "segm", else None.
    """

    images: Ints
    categories: Ints
    boxes: Floats
    scores: Floats
    areas: Floats
    segmentations: Sequence[Any] | None

    def __len__(self) -> int:
        return len(self.scores)

    def on(self, kept: GroundTruth, whole: GroundTruth) -> Results:
        """Return the detections on the images of ``kept``, a subset of the images of ``whole``."""
        if kept is whole:
            return self
        known = whole.image_rank()
        rows, images = _keep(self.images, [known[image_id] for image_id in kept.image_ids], len(known))
        return replace(self.take(rows), images=images)

    def take(self, rows: Ints) -> Results:
        """Return some of the detections (rows)."""
        segmentations = _take(self.segmentations, rows)
        images, categories, boxes = self.images[rows], self.categories[rows], self.boxes[rows]
        return Results(images, categories, boxes, self.scores[rows], self.areas[rows], segmentations)


def join_results(type: Type, parts: Sequence[Results]) -> Results:
    """Concatenate the detections of all ``parts``."""
    empty = {name: np.zeros(0, np.int64) for name in ("images", "categories")}
    nothing = Results(**empty, boxes=np.zeros((0, 4)), scores=np.zeros(0), areas=np.zeros(0), segmentations=None)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in (nothing, *parts)])
        for name in ("images", "categories", "boxes", "scores", "areas")
    }
    masks = None if type == "bbox" else [mask for part in parts for mask in part.segmentations or []]
    return Results(**columns, segmentations=masks)


def restrict_to_classes(truth: GroundTruth, results: Results, names: Sequence[str]) -> tuple[GroundTruth, Results]:
    """Return both with some of the classes only, in the order of the dataset.

    Raises:
        DataError: the dataset has no class of a name.
    """
    known = list(truth.class_names)
    for name in names:
        if name not in known:
            raise DataError(f"{truth.name}: has no class {name!r} (--classes), only {shortened(known)}")
    ranks = sorted(known.index(name) for name in names)
    rows, categories = _keep(truth.categories, ranks, len(known))
    kept = replace(
        truth.take(rows),
        categories=categories,
        category_ids=[truth.category_ids[rank] for rank in ranks],
        class_names=[known[rank] for rank in ranks],
        labeled=None if truth.labeled is None else truth.labeled[:, ranks],
    )
    rows, categories = _keep(results.categories, ranks, len(known))
    return kept, replace(results.take(rows), categories=categories)


def labeled_objects(truth: GroundTruth) -> GroundTruth:
    """Return the ground truth without crowd regions and without classes that are not annotated on their image."""
    kept = ~truth.crowd
    if truth.labeled is not None:
        kept &= truth.labeled[truth.images, truth.categories]
    return truth.take(np.flatnonzero(kept))


def drop_unlabeled(truth: GroundTruth, results: Results) -> tuple[GroundTruth, Results]:
    """Return both without objects and detections of classes that are not annotated on their image."""
    if truth.labeled is None:
        return truth, results
    objects = np.flatnonzero(truth.labeled[truth.images, truth.categories])
    found = np.flatnonzero(truth.labeled[results.images, results.categories])
    return truth.take(objects), results.take(found)


def _keep(column: Ints, ranks: Sequence[int], count: int) -> tuple[Ints, Ints]:
    """Return the rows of some ranks (of images or classes) of ``count``, and the new rank of each row."""
    renumbered = np.full(count, -1, dtype=np.int64)
    renumbered[list(ranks)] = np.arange(len(ranks))
    rows = np.flatnonzero(renumbered[column] >= 0)
    return rows, renumbered[column[rows]]


def _take(values: Sequence[Any] | None, rows: Ints) -> list[Any] | None:
    return None if values is None else [values[row] for row in rows]
