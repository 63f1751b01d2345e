"""Names of the files that a writer makes, and its result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tldet.coco.names import fold
from tldet.data.formats.records import Dataset, ImageRecord, Tally
from tldet.data.formats.registry import formats
from tldet.data.formats.to_coco import image_root, names_below
from tldet.errors import DataError

_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # a parser changes \r to \n
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


def require_names(found: Dataset, to: str) -> None:
    """Check that YOLO or Pascal VOC keeps the names of a dataset; both ignore blanks around class names.

    Raises:
        DataError: a class would lose its name or become another class, or a name cannot be part of XML.
    """
    title, seen = formats()[to].title, dict[str, str]()
    for name in found.classes:
        kept = name.strip()
        if not kept:
            raise DataError(f"{found.root}: class {name!r} has no name, which {title} needs; add a name")
        if (first := seen.setdefault(kept, name)) != name:
            raise DataError(
                f"{found.root}: classes {first!r} and {name!r} differ only in blanks around them, which {title} does "
                "not keep; rename one of them"
            )
    texts = [("class", name) for name in found.classes] + [("image", image.path.name) for image in found.images]
    if to == "voc" and (wrong := next((one for one in texts if _NOT_XML.search(one[1])), None)):
        raise DataError(f"{found.root}: {wrong[0]} {wrong[1]!a} contains a character that XML cannot hold; rename it")


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
