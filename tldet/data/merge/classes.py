"""The label sets of several data sets as one: by exact name, or as aliases say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tldet.coco.ids import unclashed
from tldet.coco.names import fold
from tldet.coco.text import parse, read_json_text
from tldet.config.check import nearest
from tldet.data.merge.source import Record
from tldet.errors import DataError

FORM = '{"new name": ["old name", ...], ...}'


@dataclass(frozen=True)
class MergedClasses:
    """The classes of a merged data set.

    Attributes:
        records: categories as they are written, in rising order of id.
        tables: for every source, its own category id to the merged one.
    """

    records: tuple[Record, ...]
    tables: tuple[dict[int, int], ...]

    @property
    def names(self) -> dict[int, str]:
        """Name of each merged id."""
        return {record["id"]: record["name"] for record in self.records}


def read_merge_aliases(path: Path, names: Collection[str]) -> dict[str, str]:
    """Old class name to new one, of a JSON ``{"new name": ["old name", ...]}``.

    Args:
        path: the JSON.
        names: of the classes of all inputs.

    Raises:
        DataError: it is no such JSON, an old name is no input's or stands under two new ones.
    """
    values = parse(read_json_text(path), str(path))
    try:
        given = msgspec.convert(values, type=dict[str, list[str]])
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: aliases have the form {FORM}: {error}") from None
    aliases: dict[str, str] = {}
    for new, olds in given.items():
        for old in olds:
            if old not in names:
                raise DataError(f"{path}: no input has a class {old!r}; {nearest(old, names)}")
            if aliases.setdefault(old, new) != new:
                raise DataError(f"{path}: {old!r} stands under {aliases[old]!r} and under {new!r}")
    return aliases


def merge_classes(lists: Sequence[Sequence[Record]], aliases: Mapping[str, str]) -> MergedClasses:
    """One list of classes; a class keeps the fields of the first source that has it, and the id where it is free.

    Args:
        lists: categories of every source; no name occurs twice in one.
        aliases: old name to new one.
    """
    firsts: dict[str, Record] = {}
    for record in (record for records in lists for record in records):
        name = aliases.get(record["name"], record["name"])
        firsts.setdefault(name, {**record, "name": name})
    ids = unclashed(np.array([record["id"] for record in firsts.values()], np.int64)).tolist()
    id_of = dict(zip(firsts, ids, strict=True))
    records = sorted(({**firsts[name], "id": id_of[name]} for name in firsts), key=lambda record: int(record["id"]))
    tables = tuple({r["id"]: id_of[aliases.get(r["name"], r["name"])] for r in one} for one in lists)
    return MergedClasses(tuple(records), tables)


def near_clashes(names: Collection[str]) -> list[tuple[str, ...]]:
    """Groups of names that differ in case, spaces, punctuation, Unicode form or a plural's s only."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        plain = re.sub(r"[\W_]+", "", fold(name))
        groups[plain.removesuffix("s") or name].append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def uneven_folds(lists: Sequence[Sequence[Record]], aliases: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Classes that several categories of one source become, where another source has only some of these.

    There the class looks labeled and is so in part: (new name, source that has more, source that lacks some).
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
    """Merged ids of the classes labeled on an image.

    Where several categories of a source become one class, the class is labeled where all of them are.

    Args:
        table: a source's own ids to merged ones.
        stated: own ids of the categories labeled on the image; None is all.
    """
    missing = {new for old, new in table.items() if stated is not None and old not in stated}
    return frozenset(table.values()) - missing


def differing_fields(lists: Sequence[Sequence[Record]], aliases: Mapping[str, str]) -> list[str]:
    """New names of classes whose sources differ in fields other than name and id, such as the supercategory."""
    firsts: dict[str, dict[str, Any]] = {}
    found: dict[str, None] = {}
    for record in (record for records in lists for record in records):
        name = aliases.get(record["name"], record["name"])
        rest = {key: value for key, value in record.items() if key not in ("id", "name")}
        if firsts.setdefault(name, rest) != rest:
            found[name] = None
    return list(found)
