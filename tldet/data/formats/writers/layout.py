"""Names of the files that a writer makes, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tldet.coco.names import fold
from tldet.data.formats.records import ImageRecord, Tally
from tldet.data.formats.to_coco import image_root, names_below

Splits = Mapping[str | None, Sequence[ImageRecord]]


@dataclass
class Written:
    """Result of writing a dataset.

    Attributes:
        images: source and target of each image file, which remain to be copied.
        tally: counts of objects and fields that the format cannot store or that were changed for it.
        boxes: number of objects written.
        masks: number of objects written with a mask.
    """

    images: list[tuple[Path, Path]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    boxes: int = 0
    masks: int = 0


def image_names(images: Sequence[ImageRecord], written: Written, taken: set[str], *, flat: bool = False) -> list[str]:
    """Return a path for each image whose stem is unique, since annotation files are named by stems.

    Args:
        images: the images.
        written: counts the images that are renamed.
        taken: folded stems of earlier images; the new ones are added.
        flat: without folders.
    """
    names = []
    for image, name in zip(images, names_below(image_root(images), images), strict=True):
        wanted = PurePosixPath(name.replace("/", "_") if flat else name)
        found, number = wanted, 1
        while fold(str(found.with_suffix(""))) in taken:
            number += 1
            found = wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}")
        if found.name != image.path.name:
            written.tally.add(str(image.path), "image", "renamed")
        taken.add(fold(str(found.with_suffix(""))))
        names.append(str(found))
    return names
