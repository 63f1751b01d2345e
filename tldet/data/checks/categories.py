"""Checks of categories: names, ids, and categories without objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from tldet.coco.names import fold
from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records
from tldet.text import counted

_PLACEHOLDERS = {"background", "__background__", "none", "_", "unknown", "undefined", "placeholder", "n/a"}


def check_categories(records: Records) -> Iterator[Finding]:
    """Yield categories without a name, with a duplicate name, with a negative id, or without objects."""
    used = set(np.unique(records.labels).tolist())
    names = list(zip(records.category_ids, records.class_names, strict=True))
    own = [(label, key, name) for label, (key, name) in enumerate(names) if key is not None]
    for label, key, name in own:
        if not name.strip():
            yield records.finding("category-name-missing", f"category id {key} has no name", fix="add a name")
        elif name != name.strip():
            text = f"category id {key} {name!r} has leading or trailing spaces"
            yield records.finding("category-name-blank", text, fix=f"rename it to {name.strip()!r}")
        if key < 0:
            yield records.finding("category-id-negative", f"category id {key} ({name}) is negative", fix="renumber it")
        if label not in used and len(records.labels):
            placeholder = name.strip().lower() in _PLACEHOLDERS
            text = f"category id {key} {name!r} has no objects" + (" (a placeholder)" if placeholder else "")
            yield records.finding("category-placeholder" if placeholder else "category-unused", text)
    yield from _same_names(records, [(key, name) for _, key, name in own])


def _same_names(records: Records, names: Sequence[tuple[int, str]]) -> Iterator[Finding]:
    groups: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for key, name in names:
        if name.strip():
            groups[fold("".join(name.split()).replace("_", "").replace("-", ""))].append((key, name))
    for found in groups.values():
        repeated = len({name for _, name in found}) < len(found)
        if len(found) < 2:
            continue
        text = " and ".join(f"{name!r} (id {key})" for key, name in found)
        if repeated:
            yield records.finding(
                "category-name-repeated", f"categories {text} have the same name", fix="rename or merge them"
            )
        else:  # single letters may differ on purpose, as in handwriting
            severity = "info" if all(len(name.strip()) == 1 for _, name in found) else "warning"
            message = f"categories {text} differ only in letter case, spaces, hyphens or underscores"
            fix = "merge them if they are the same class"
            yield records.finding("category-name-case", message, severity=severity, fix=fix)


def check_between_splits(splits: Sequence[Records]) -> Iterator[Finding]:
    """Yield category ids with different names in two splits, and classes without objects in a split."""
    names: dict[int, tuple[str, Records]] = {}
    for records in splits:
        for key, name in zip(records.category_ids, records.class_names, strict=True):
            if key is None:
                continue
            first, other = names.setdefault(key, (name, records))
            if first != name and name not in other.class_names:
                text = f"category id {key} is {name!r} in this file and {first!r} in {other.file}"
                yield records.finding("category-differs", text, fix="use the same categories in all splits")
    yield from _absent(splits)


def _absent(splits: Sequence[Records]) -> Iterator[Finding]:
    train = [one for one in splits if one.split == "train"]
    others = [one for one in splits if one.split in ("val", "test")]
    if not train or not others:
        return
    trained = _counts(train)
    for records in others:
        evaluated = _counts([records])
        for name in sorted(evaluated.keys() - trained.keys()):
            text = f"class {name!r} has {counted(evaluated[name], 'object')} in {records.split}, but none in train"
            yield train[0].finding("class-not-in-train", text, fix="move images with this class to train")
        for name in sorted(trained.keys() - evaluated.keys()):
            text = f"class {name!r} has {counted(trained[name], 'object')} in train, but none in {records.split}"
            yield records.finding("class-not-in-val", text, fix="create new splits with tldet split")


def _counts(splits: Sequence[Records]) -> dict[str, int]:
    """Return the number of objects per class, without crowd regions and without empty classes."""
    counts: defaultdict[str, int] = defaultdict(int)
    for records in splits:
        found = np.bincount(records.labels[~records.crowd], minlength=len(records.class_names))
        for label in np.flatnonzero(found).tolist():
            counts[records.class_names[label]] += int(found[label])
    return dict(counts)
