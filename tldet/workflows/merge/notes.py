"""Notes on a merge, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tldet.coco.ids import NO_ID, ODD_ID
from tldet.data.merge.classes import MergedClasses, differing_fields, near_clashes, partially_merged
from tldet.data.merge.join import Joined
from tldet.data.merge.source import MergeSource
from tldet.text import are, counted
from tldet.workflows.merge.report import SplitRow

_NAMED = 5  # names in a line; further ones are counted


def class_notes(sources: Sequence[MergeSource], classes: MergedClasses, aliases: Mapping[str, str]) -> Iterator[str]:
    """Yield notes on class names."""
    for group in near_clashes(classes.names.values()):
        quoted = " and ".join(repr(name) for name in group)
        yield f"classes {quoted} are not merged; to merge them, use --aliases"
    lists = [source.categories for source in sources]
    for name, most, fewer in partially_merged(lists, aliases):
        yield (
            f"class {name!r} combines several classes of {sources[most].path}; {sources[fewer].path} lacks some of "
            "these, but counts as annotated for the class"
        )
    if differing := differing_fields(lists, aliases):
        yield f"{some_names(differing)}: further category fields differ; those of the first input are kept"
    for source in sources:
        used = set(source.category_ids.tolist())
        if empty := [record["name"] for record in source.categories if record["id"] not in used]:
            yield f"{source.path} has no object of {some_names(empty)}; its images count as annotated for them"
        yield from (f"{source.path}: {line}" for line in source.notes)
        if source.left_out:
            yield f"{source.path}: {some_names(source.left_out)} not copied"


def split_notes(row: SplitRow, joined: Joined, differing: int, names: Mapping[int, str]) -> Iterator[str]:
    """Yield notes on the changes in a split, with the first ids."""
    labels = set(joined.labeled)
    if row.merged_images:
        count = counted(row.merged_images, "image")
        yield f"{row.file}: {count} {are(row.merged_images)} in several inputs; kept once"
    if differing:
        count = f"{differing} of these {are(differing)}"
        yield f"{row.file}: {count} described differently; the fields of the first input are kept"
    if row.duplicates:
        left_out = some_names([_object(joined, left) for left, _ in joined.duplicates])
        count = f"{counted(row.duplicates, 'object')} {are(row.duplicates)}"
        yield f"{row.file}: {count} annotated twice (same class, IoU > 0.9) and kept once; left out: {left_out}"
    if row.changed_image_ids:
        yield f"{row.file}: {counted(row.changed_image_ids, 'image')} got a new id (duplicate id)"
    if row.changed_annotation_ids:
        count = counted(row.changed_annotation_ids, "object")
        yield f"{row.file}: {count} got a new id (duplicate, missing or 0)"
    if absent := [name for category, name in names.items() if not any(category in ids for ids in labels)]:
        yield f"{row.file}: no image annotated for {some_names(absent)}"
    strays = np.flatnonzero(joined.unlabeled)
    if len(strays):
        first = _object(joined, int(strays[0]))
        count = f"{counted(len(strays), 'object')} {are(len(strays))}"
        yield f"{row.file}: {count} of classes that are not annotated on their image (first: {first})"


def shared_note(one: str, two: str, count: int) -> str:
    """Return a note on images that are in two splits."""
    return f"{counted(count, 'image')} {are(count)} both in {one} and in {two}"


def _object(joined: Joined, position: int) -> str:
    number, row = joined.object(position)
    source = joined.sources[number]
    stated, own = source.stated_ids[row], source.annotation_ids[row]
    return f"annotation {own if stated in (NO_ID, ODD_ID) else stated} of {source.path}"


def some_names(names: Sequence[str]) -> str:
    """Return the first names and the number of further ones."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
