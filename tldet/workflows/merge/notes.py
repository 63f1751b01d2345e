"""A line for everything one should know of a merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tldet.coco.ids import NO_ID, ODD_ID
from tldet.data.merge.classes import MergedClasses, differing_fields, near_clashes, uneven_folds
from tldet.data.merge.join import Joined
from tldet.data.merge.source import MergeSource
from tldet.text import are, counted
from tldet.workflows.merge.report import PartRow

_NAMED = 5  # so many are named; the rest is counted


def class_notes(sources: Sequence[MergeSource], classes: MergedClasses, aliases: Mapping[str, str]) -> Iterator[str]:
    """What one should know of names."""
    for group in near_clashes(classes.names.values()):
        quoted = " and ".join(repr(name) for name in group)
        yield f"classes {quoted} are kept apart; if they are one, say so with --aliases"
    lists = [source.categories for source in sources]
    for name, most, fewer in uneven_folds(lists, aliases):
        yield (
            f"class {name!r} is made of several of {sources[most].path}, but {sources[fewer].path} lacks some of "
            "these: it counts as labeled there all the same"
        )
    if differing := differing_fields(lists, aliases):
        yield f"{some_names(differing)}: inputs differ in fields other than name and id; the first input's are kept"
    for source in sources:
        used = set(source.category_ids.tolist())
        if empty := [record["name"] for record in source.categories if record["id"] not in used]:
            yield f"{source.path} lists {some_names(empty)} without an object: its images count as free of them"
        yield from (f"{source.path}: {line}" for line in source.notes)
        if source.left_out:
            yield f"{source.path}: {some_names(source.left_out)} not carried over"


def part_notes(row: PartRow, joined: Joined, differing: int, names: Mapping[int, str]) -> Iterator[str]:
    """What was changed in a part, with the first ids."""
    labels = set(joined.labeled)
    if row.united_images:
        count = counted(row.united_images, "image")
        yield f"{row.file}: {count} {are(row.united_images)} in several inputs and kept once"
    if differing:
        count = f"{differing} of these {are(differing)}"
        yield f"{row.file}: {count} described differently; the first input's fields are kept"
    if row.twins:
        left_out = some_names([_object(joined, left) for left, _ in joined.twins])
        twice = f"{counted(row.twins, 'object')} {are(row.twins)} annotated twice (one class, IoU > 0.9) and kept once"
        yield f"{row.file}: {twice}; left out: {left_out}"
    if row.changed_image_ids:
        yield f"{row.file}: {counted(row.changed_image_ids, 'image')} got a new id: the old one was taken"
    if row.changed_annotation_ids:
        count = counted(row.changed_annotation_ids, "object")
        yield f"{row.file}: {count} got a new id: the old one was taken, missing or 0"
    if absent := [name for category, name in names.items() if not any(category in ids for ids in labels)]:
        yield f"{row.file}: no image is labeled for {some_names(absent)}"
    strays = np.flatnonzero(joined.unlabeled)
    if len(strays):
        first = _object(joined, int(strays[0]))
        count = f"{counted(len(strays), 'object')} {are(len(strays))}"
        yield f"{row.file}: {count} of a class that is not annotated on the image (first: {first})"


def shared_note(one: str, two: str, count: int) -> str:
    """Images that are learned and measured on alike."""
    return f"{counted(count, 'image')} {are(count)} both in {one} and in {two}: evaluated on training images"


def _object(joined: Joined, position: int) -> str:
    number, place = joined.object(position)
    source = joined.sources[number]
    stated, own = source.stated_ids[place], source.annotation_ids[place]
    return f"annotation {own if stated in (NO_ID, ODD_ID) else stated} of {source.path}"


def some_names(names: Sequence[str]) -> str:
    """The first few, and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
