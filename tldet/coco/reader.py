"""The reader of COCO JSON: one set of rules for training, validation, evaluation and merging.

Every ``image_id`` and ``category_id`` must exist; image and category ids must be unique. Missing, repeated and
non-integer annotation ids are replaced, since nothing refers to them. A missing bbox is derived from the segmentation.
Roboflow's unused supercategory entry is dropped. :attr:`Coco.notes` counts everything that was changed or left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco import checks
from tldet.coco.objects import Objects, read_objects
from tldet.coco.records import Category, CocoSource, Image, read_document
from tldet.coco.text import parse, read_json_text
from tldet.errors import DataError

MOST_CATEGORIES = 20_000  # evaluation takes 97 kB for each, a classifier thousands of weights


@dataclass(frozen=True)
class Coco:
    """Contents of a COCO JSON.

    Attributes:
        images: the images.
        categories: the categories, without ``unused``.
        unused: the dropped supercategory entry, if any.
        objects: the annotations.
        notes: messages that count what was changed or left out.
    """

    images: list[Image]
    categories: list[Category]
    unused: Category | None
    objects: Objects
    notes: tuple[str, ...]

    def labeled(self) -> list[list[int] | None]:
        """Return the ids of the categories annotated on each image; None for all categories."""
        dropped = None if self.unused is None else self.unused.id
        stated = [image.labeled_category_ids for image in self.images]
        return [None if ids is None else [one for one in ids if one != dropped] for ids in stated]


def read_coco(source: CocoSource, name: str | None = None, *, outlines: bool = False) -> Coco:
    """Read and check a COCO JSON.

    Args:
        source: the file, or Python values of the same layout.
        name: name of the source in messages; None takes the path.
        outlines: keep the text of the segmentations.

    Raises:
        DataError: the file is invalid; the message names the file and the id of the annotation, image or category.
    """
    name = str(source) if name is None else name
    found, count, blocks = read_document(source, name)
    if count and not (found.images and found.categories):
        raise DataError(f"{name}: has no {'categories' if found.images else 'images'}")
    if len(found.categories) > MOST_CATEGORIES:
        raise DataError(
            f"{name}: has {len(found.categories)} categories; more than {MOST_CATEGORIES} are not supported"
        )
    checks.unique_ids(name, "image", [image.id for image in found.images])
    checks.unique_ids(name, "category", [category.id for category in found.categories])
    category_ids = [category.id for category in found.categories]
    objects, notes = read_objects(name, blocks, found.images, category_ids, outlines=outlines)
    categories, unused = drop_unused(found.categories, objects.category_ids)
    if unused is not None:
        notes.append(f"category {unused.id} {unused.name!r} dropped: unused supercategory entry of a Roboflow export")
    sizes = np.array([(i.height or 0, i.width or 0) for i in found.images], np.int64).reshape(-1, 2)
    if count is None:
        notes.append("has no 'annotations' list; all images count as images without objects")
    notes += checks.require_coco_boxes(name, "boxes", objects.boxes, sizes[objects.places], objects.areas)
    return Coco(found.images, categories, unused, objects, tuple(notes))


def require_training_fields(coco: Coco, name: str) -> None:
    """Raise DataError unless every image has a file name and a size, and every category a unique name."""
    if not coco.images:
        raise DataError(f"{name}: has no images")
    for image in coco.images:
        if image.file_name is None:
            raise DataError(f"{name}: image id {image.id} has no 'file_name'")
        if image.width is None or image.height is None:
            raise DataError(f"{name}: image id {image.id} has no '{'width' if image.width is None else 'height'}'")
        if image.width <= 0 or image.height <= 0:
            raise DataError(f"{name}: image {image.id} ({image.file_name}) has size {image.width} x {image.height}")
    if not coco.categories:
        raise DataError(f"{name}: has no categories")
    seen: dict[str, int] = {}
    for category in coco.categories:
        if category.name is None:
            raise DataError(f"{name}: category id {category.id} has no 'name'")
        if category.id < 0:
            raise DataError(
                f"{name}: category id {category.id} ({category.name}) is negative: number the categories from 0 up"
            )
        if seen.setdefault(category.name, category.id) != category.id:
            ids = f"category ids {seen[category.name]} and {category.id}"
            raise DataError(f"{name}: category name {category.name!r} occurs more than once ({ids}); rename one")


def drop_unused(categories: Sequence[Category], used: NDArray[np.int64]) -> tuple[list[Category], Category | None]:
    """Drop Roboflow's entry for the supercategory: unused, and the supercategory of all other categories.

    Returns:
        The remaining categories, and the dropped one or None.
    """
    parents = Counter(one.supercategory for one in categories if isinstance(one.supercategory, str))
    for one in categories:
        root = one.supercategory in ("none", "", None) and one.name is not None
        children = parents[one.name or ""] - (one.supercategory == one.name) if root else 0
        if root and 0 < children == len(categories) - 1 and not (used == one.id).any():
            return [other for other in categories if other is not one], one
    return list(categories), None


def read_repaired(path: Path) -> dict[str, Any]:
    """Read a COCO JSON with all its fields and the repairs of :func:`read_coco`.

    Raises:
        DataError: see :func:`read_coco`.
    """
    coco = read_coco(path)
    whole: dict[str, Any] = parse(read_json_text(path), str(path))
    found, records = coco.objects, whole.get("annotations") or []
    columns = (found.rows, found.ids, found.places, found.category_ids, found.boxes, found.derived)
    annotations = []
    for row, key, place, category, box, derived in zip(*(column.tolist() for column in columns), strict=True):
        ids = {"id": key, "image_id": coco.images[place].id, "category_id": category}
        annotations.append({**records[row], **ids, **({"bbox": box} if derived else {})})
    kept = {category.id for category in coco.categories}
    return {
        **whole,
        "images": [{**record, "id": image.id} for record, image in zip(whole["images"], coco.images, strict=True)],
        "annotations": annotations,
        "categories": [{**one, "id": int(one["id"])} for one in whole["categories"] if one["id"] in kept],
    }
