"""Writer of COCO JSON: ``annotations/instances_SPLIT.json`` and ``images/SPLIT``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldet.data.formats.records import Dataset
from tldet.data.formats.to_coco import coco_values, image_root, names_below
from tldet.data.formats.writers.layout import Splits, Written
from tldet.system.output import write_json


def write_coco(found: Dataset, splits: Splits, classes: Sequence[str], out: Path) -> Written:
    """Write a dataset; ids of a COCO source are kept.

    Raises:
        OutputError: a file cannot be written.
    """
    written = Written()
    for split, images in splits.items():
        names = names_below(image_root(images), images)
        values = coco_values(images, names, classes, f"converted from {found.format}", found.category_ids)
        folder = out / "images" / (split or "")
        written.images += [(image.path, folder / name) for image, name in zip(images, names, strict=True)]
        written.boxes += len(values["annotations"])
        written.masks += sum(bool(one["segmentation"]) for one in values["annotations"])
        write_json(out / "annotations" / f"instances{f'_{split}' if split else ''}.json", values)
        for image in images:
            for shape in image.shapes:
                if shape.difficult:
                    written.tally.add(image.who(shape), "'difficult' flag", "dropped: COCO JSON has none")
    return written
