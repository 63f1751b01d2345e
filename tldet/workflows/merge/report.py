"""What ``tldet merge`` reports in numbers: the inputs, the classes, what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tldet.data.merge.classes import MergedClasses
from tldet.data.merge.join import Joined
from tldet.data.merge.source import MergeSource


@dataclass(frozen=True)
class InputRow:
    """One JSON that went in, and the part of the merged data set it went to."""

    path: str
    part: str
    images: int
    objects: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class PartRow:
    """One JSON that came out; its images and those united, its objects and their twins add up to what went in."""

    part: str
    file: str
    images: int
    united_images: int
    objects: int
    twins: int
    changed_image_ids: int
    changed_annotation_ids: int


@dataclass(frozen=True)
class ClassRow:
    """A class in a part: its objects, and the images on which it is labeled."""

    id: int
    name: str
    part: str
    objects: int
    labeled_images: int


@dataclass(frozen=True)
class ChangedId:
    """A category that has another id or name than in its input."""

    path: str
    old_id: int
    old_name: str
    new_id: int
    new_name: str


@dataclass(frozen=True)
class MergeReport:
    """What went in, what came out, and ``notes``: a line for everything that one should know of."""

    inputs: tuple[InputRow, ...]
    parts: tuple[PartRow, ...]
    classes: tuple[ClassRow, ...]
    changed_categories: tuple[ChangedId, ...]
    notes: tuple[str, ...]


def input_row(source: MergeSource, part: str) -> InputRow:
    """Counts of one JSON."""
    names = tuple(record["name"] for record in source.categories)
    return InputRow(str(source.path), part, len(source.images), len(source.objects), names)


def part_row(part: str, path: Path, joined: Joined) -> PartRow:
    """Counts of one JSON that was written."""
    old_images = np.concatenate([source.image_ids for source in joined.sources])[joined.firsts]
    old_objects = np.concatenate([source.stated_ids for source in joined.sources])
    return PartRow(
        part,
        path.name,
        images=len(joined.firsts),
        united_images=len(joined.image_of) - len(joined.firsts),
        objects=int(joined.kept.sum()),
        twins=len(joined.twins),
        changed_image_ids=int((joined.image_ids != old_images).sum()),
        changed_annotation_ids=int((joined.annotation_ids != old_objects)[joined.kept].sum()),
    )


def class_rows(part: str, joined: Joined, classes: MergedClasses) -> Iterator[ClassRow]:
    """A row for every class."""
    categories = joined.category_ids[joined.kept]
    labels = Counter(joined.labeled)  # a few sets, each of many images
    for category, name in classes.names.items():
        labeled = sum(count for ids, count in labels.items() if category in ids)
        yield ClassRow(category, name, part, int((categories == category).sum()), labeled)


def changed_ids(sources: Sequence[MergeSource], classes: MergedClasses) -> Iterator[ChangedId]:
    """Every category whose id or name is not its input's."""
    for source, table in zip(sources, classes.tables, strict=True):
        for record in source.categories:
            new = table[record["id"]]
            changed = ChangedId(str(source.path), record["id"], record["name"], new, classes.names[new])
            if (changed.old_id, changed.old_name) != (changed.new_id, changed.new_name):
                yield changed
