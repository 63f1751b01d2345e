"""Merging of the classes of several datasets, by exact name or by aliases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tldet.coco.ids import renumber_repeated
from tldet.coco.names import fold
from tldet.coco.raw import Record
from tldet.coco.records import read_json_text
from tldet.coco.text import parse
from tldet.config.check import nearest
from tldet.errors import DataError

_FORM = '{"new name": ["old name", ...], ...}'


@dataclass(frozen=True)
class MergedClasses:
    """Classes of a merged dataset.

    Attributes:
        records: categories of the merged JSON, in ascending order of id.
        tables: for each source, the merged id of each of its category ids.
    """

    records: tuple[Record, ...]
    tables: tuple[dict[int, int], ...]

    @property
    def names(self) -> dict[int, str]:
        """Name of each merged category id."""
        return {record["id"]: record["name"] for record in self.records}


def read_merge_aliases(path: Path, names: Collection[str]) -> dict[str, str]:
    """Read a JSON ``{"new name": ["old name", ...]}``; return the new name of each old one.

    Args:
        path: the JSON.
        names: class names of all inputs.

    Raises:
        DataError: the file has another form, or an old name is unknown or has two new names.
    """
    values = parse(read_json_text(path), str(path))
    try:
        groups = msgspec.convert(values, type=dict[str, list[str]])
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: aliases have the form {_FORM}: {error}") from None
    aliases: dict[str, str] = {}
    for new, olds in groups.items():
        for old in olds:
            if old not in names:
                raise DataError(f"{path}: no input has a class {old!r}; {nearest(old, names)}")
            if aliases.setdefault(old, new) != new:
                raise DataError(f"{path}: {old!r} has two new names, {aliases[old]!r} and {new!r}")
    return aliases


def merge_classes(lists: Sequence[Sequence[Record]], aliases: Mapping[str, str]) -> MergedClasses:
    """Merge lists of categories; a class keeps the fields of its first source, and its id unless that is taken.

    Args:
        lists: categories of each source, with unique names within a source.
        aliases: new name of each old name.
    """
    firsts: dict[str, Record] = {}
    for record in (record for records in lists for record in records):
        name = aliases.get(record["name"], record["name"])
        firsts.setdefault(name, {**record, "name": name})
    ids = renumber_repeated(np.array([record["id"] for record in firsts.values()], np.int64)).tolist()
    id_of = dict(zip(firsts, ids, strict=True))
    records = sorted(({**firsts[name], "id": id_of[name]} for name in firsts), key=lambda record: int(record["id"]))
    tables = tuple({r["id"]: id_of[aliases.get(r["name"], r["name"])] for r in records} for records in lists)
    return MergedClasses(tuple(records), tables)


def near_clashes(names: Collection[str]) -> list[tuple[str, ...]]:
    """Return groups of names that differ only in case, spaces, punctuation, Unicode form or a plural s."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = re.sub(r"[\W_]+", "", fold(name))
        groups[plain.removesuffix("s") or name].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def partially_merged(lists: Sequence[Sequence[Record]], aliases: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Find classes that combine several categories of one source while another source has only some of these.

    The other source then counts as annotated for the class although it is annotated for a part of it only.

    Returns:
        (new name, source with more categories, source with fewer) of each.
    """
    groups: defaultdict[str, dict[int, set[str]]] = defaultdict(dict)
    for number, records in enumerate(lists):
        for name in (record["name"] for record in records):
            groups[aliases.get(name, name)].setdefault(number, set()).add(name)
    found = []
    for name, sources in groups.items():
        most = max(sources, key=lambda number: len(sources[number]))
        lacking = [number for number, names in sources.items() if names < sources[most]]
        found += [(name, most, number) for number in lacking]
    return found


def labeled_classes(table: Mapping[int, int], stated: Collection[int] | None) -> frozenset[int]:
    """Return the merged ids of the classes annotated on an image.

    A class merged from several categories of a source is annotated if all of these are.

    Args:
        table: merged id of each category id of the source.
        stated: category ids of the source annotated on the image; None for all.
    """
    missing = {new for old, new in table.items() if stated is not None and old not in stated}
    return frozenset(table.values()) - missing


def differing_fields(lists: Sequence[Sequence[Record]], aliases: Mapping[str, str]) -> list[str]:
    """Return the names of classes whose sources differ in other fields than name and id, such as supercategory."""
    firsts: dict[str, dict[str, Any]] = {}
    found: dict[str, None] = {}
    for record in (record for records in lists for record in records):
        name = aliases.get(record["name"], record["name"])
        rest = {key: value for key, value in record.items() if key not in ("id", "name")}
        if firsts.setdefault(name, rest) != rest:
            found[name] = None
    return list(found)
