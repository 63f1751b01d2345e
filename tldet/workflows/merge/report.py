"""Report of ``tldet merge``: inputs, classes and outputs."""

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
    """One input JSON, and its split in the merged dataset."""

    path: str
    split: str
    images: int
    objects: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class SplitRow:
    """One output JSON; merged images and duplicate objects are counted in addition to the kept ones."""

    split: str
    file: str
    images: int
    merged_images: int
    objects: int
    duplicates: int
    changed_image_ids: int
    changed_annotation_ids: int


@dataclass(frozen=True)
class ClassRow:
    """Class in a split: number of objects, and of images annotated for it."""

    id: int
    name: str
    split: str
    objects: int
    labeled_images: int


@dataclass(frozen=True)
class ChangedId:
    """Category whose id or name differs from that in its input."""

    path: str
    old_id: int
    old_name: str
    new_id: int
    new_name: str


@dataclass(frozen=True)
class MergeReport:
    """Inputs, outputs, classes, and notes of one line each."""

    inputs: tuple[InputRow, ...]
    splits: tuple[SplitRow, ...]
    classes: tuple[ClassRow, ...]
    changed_categories: tuple[ChangedId, ...]
    notes: tuple[str, ...]


def input_row(source: MergeSource, split: str) -> InputRow:
    """Count images and objects of an input."""
    names = tuple(record["name"] for record in source.categories)
    return InputRow(str(source.path), split, len(source.images), len(source.objects), names)


def split_row(split: str, path: Path, joined: Joined) -> SplitRow:
    """Count images and objects of an output."""
    old_images = np.concatenate([source.image_ids for source in joined.sources])[joined.firsts]
    old_objects = np.concatenate([source.stated_ids for source in joined.sources])
    return SplitRow(
        split,
        path.name,
        images=len(joined.firsts),
        merged_images=len(joined.image_of) - len(joined.firsts),
        objects=int(joined.kept.sum()),
        duplicates=len(joined.duplicates),
        changed_image_ids=int((joined.image_ids != old_images).sum()),
        changed_annotation_ids=int((joined.annotation_ids != old_objects)[joined.kept].sum()),
    )


def class_rows(split: str, joined: Joined, classes: MergedClasses) -> Iterator[ClassRow]:
    """Yield a row for every class."""
    categories = joined.category_ids[joined.kept]
    labels = Counter(joined.labeled)  # a few sets, each of many images
    for category, name in classes.names.items():
        labeled = sum(count for ids, count in labels.items() if category in ids)
        yield ClassRow(category, name, split, int((categories == category).sum()), labeled)


def changed_ids(sources: Sequence[MergeSource], classes: MergedClasses) -> Iterator[ChangedId]:
    """Yield every category whose id or name differs from that in its input."""
    for source, table in zip(sources, classes.tables, strict=True):
        for record in source.categories:
            new = table[record["id"]]
            changed = ChangedId(str(source.path), record["id"], record["name"], new, classes.names[new])
            if (changed.old_id, changed.old_name) != (changed.new_id, changed.new_name):
                yield changed
