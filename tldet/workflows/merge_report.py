"""What ``tldet merge`` says: the inputs, the classes, what clashed and what was done about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tldet.data.merge.classes import Classes, differing_fields, near_clashes, uneven_folds
from tldet.data.merge.join import Joined
from tldet.data.merge.source import Source

if TYPE_CHECKING:
    from rich.console import Console

NAMED = 5  # so many are named; the rest is counted
WIDTH = 150  # of a table in a file or a pipe


@dataclass(frozen=True)
class InputRow:
    """One JSON that went in, and the part of the merged data set it went to."""

    path: str
    part: str
    pictures: int
    objects: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class PartRow:
    """One JSON that came out; its pictures and those united, its objects and their twins add up to what went in."""

    part: str
    file: str
    pictures: int
    united_pictures: int
    objects: int
    twins: int
    changed_picture_ids: int
    changed_annotation_ids: int


@dataclass(frozen=True)
class ClassRow:
    """A class in a part: its objects, and the pictures on which it is labelled."""

    id: int
    name: str
    part: str
    objects: int
    labelled_pictures: int


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


def input_row(source: Source, part: str) -> InputRow:
    """Counts of one JSON."""
    names = tuple(record["name"] for record in source.categories)
    return InputRow(str(source.path), part, len(source.pictures), len(source.objects), names)


def part_row(part: str, path: Path, joined: Joined) -> PartRow:
    """Counts of one JSON that was written."""
    old_pictures = np.concatenate([source.image_ids for source in joined.sources])[joined.firsts]
    old_objects = np.concatenate([source.annotation_ids for source in joined.sources])
    return PartRow(
        part,
        path.name,
        pictures=len(joined.firsts),
        united_pictures=len(joined.picture_of) - len(joined.firsts),
        objects=int(joined.kept.sum()),
        twins=len(joined.twins),
        changed_picture_ids=int((joined.picture_ids != old_pictures).sum()),
        changed_annotation_ids=int((joined.annotation_ids != old_objects)[joined.kept].sum()),
    )


def class_rows(part: str, joined: Joined, classes: Classes) -> Iterator[ClassRow]:
    """A row for every class."""
    categories = joined.category_ids[joined.kept]
    for category, name in classes.names.items():
        labelled = sum(category in ids for ids in joined.labelled)
        yield ClassRow(category, name, part, int((categories == category).sum()), labelled)


def changed_ids(sources: Sequence[Source], classes: Classes) -> Iterator[ChangedId]:
    """Every category whose id or name is not its input's."""
    for source, table in zip(sources, classes.tables, strict=True):
        for record in source.categories:
            new = table[record["id"]]
            changed = ChangedId(str(source.path), record["id"], record["name"], new, classes.names[new])
            if (changed.old_id, changed.old_name) != (changed.new_id, changed.new_name):
                yield changed


def class_notes(sources: Sequence[Source], classes: Classes, aliases: Mapping[str, str]) -> Iterator[str]:
    """What one should know of names."""
    for group in near_clashes(classes.names.values()):
        named = " and ".join(repr(name) for name in group)
        yield f"classes {named} are kept apart; if they are one, say so with --aliases"
    lists = [source.categories for source in sources]
    for name, most, fewer in uneven_folds(lists, aliases):
        yield (
            f"class {name!r} is made of several of {sources[most].path}, but {sources[fewer].path} lacks some of "
            "these: it counts as labelled there all the same"
        )
    if differing := differing_fields(lists, aliases):
        yield f"{_named(differing)}: inputs differ in fields other than name and id; the first input's are kept"
    for source in sources:
        used = set(source.category_ids.tolist())
        if empty := [record["name"] for record in source.categories if record["id"] not in used]:
            yield f"{source.path} lists {_named(empty)} without an object: its pictures count as free of them"
        if source.left_out:
            yield f"{source.path}: {_named(source.left_out)} not carried over"


def part_notes(row: PartRow, joined: Joined, differing: int, names: Mapping[int, str]) -> Iterator[str]:
    """What was changed in a part, with the first ids."""
    if row.united_pictures:
        yield f"{row.file}: {row.united_pictures} pictures are another input's too and were united with it"
    if differing:
        yield f"{row.file}: {differing} of these are described differently; the first input's fields are kept"
    if row.twins:
        left_out = _named([_object(joined, left) for left, _ in joined.twins])
        twice = f"{row.twins} objects are annotated twice (one class, IoU > 0.9) and kept once"
        yield f"{row.file}: {twice}; left out: {left_out}"
    if row.changed_picture_ids:
        yield f"{row.file}: {row.changed_picture_ids} pictures have a new id, theirs was taken"
    if row.changed_annotation_ids:
        yield f"{row.file}: {row.changed_annotation_ids} objects have a new id, theirs was taken, missing or 0"
    if absent := [name for category, name in names.items() if not any(category in ids for ids in joined.labelled)]:
        yield f"{row.file}: no picture is labelled for {_named(absent)}"
    strays = np.flatnonzero(joined.unlabelled)
    if len(strays):
        first = _object(joined, int(strays[0]))
        yield f"{row.file}: {len(strays)} objects are of a class not labelled on their picture (first: {first})"


def shared_note(one: str, two: str, count: int) -> str:
    """Pictures that are learnt and measured on alike."""
    return f"{count} pictures are in {one} and in {two}: what is measured on them was trained on"


def _object(joined: Joined, position: int) -> str:
    number, place = joined.object(position)
    source = joined.sources[number]
    return f"annotation {source.annotation_ids[place]} of {source.path}"


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def show(report: MergeReport, console: Console) -> None:
    """Print the tables."""
    inputs = [(r.path, r.part, str(r.pictures), str(r.objects), _named(r.classes)) for r in report.inputs]
    _print(console, "inputs", ("input", "part", "pictures", "objects", "classes"), inputs)
    if report.changed_categories:
        rows = [(r.path, f"{r.old_id} {r.old_name}", f"{r.new_id} {r.new_name}") for r in report.changed_categories]
        _print(console, "categories with a new id or name", ("input", "was", "is"), rows)
    pictures = {row.part: row.pictures for row in report.parts}
    found = [
        (str(r.id), r.name, r.part, str(r.objects), f"{r.labelled_pictures} of {pictures[r.part]}")
        for r in report.classes
    ]
    _print(console, "classes", ("id", "class", "part", "objects", "labelled on"), found)
    out = [(r.file, str(r.pictures), str(r.united_pictures), str(r.objects), str(r.twins)) for r in report.parts]
    _print(console, "merged", ("file", "pictures", "united", "objects", "left out"), out)


def _print(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        table.width = Measurement.get(console, console.options.update(max_width=WIDTH), table).maximum
    console.print(table)
