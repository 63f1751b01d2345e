"""Training and validation data of an extended detector: old and new images in one dataset.

Each image records which classes are annotated on it, so that a class that is not annotated is not treated as
background.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tldet.coco.raw import Record
from tldet.data.layouts import Split
from tldet.data.merge.classes import MergedClasses, merge_classes
from tldet.data.merge.files import reference
from tldet.data.merge.join import Joined, alike, join
from tldet.data.merge.source import MergeSource, open_merge_source
from tldet.data.merge.writing import write_joined
from tldet.data.relabeled import Sources
from tldet.data.tracking import Track
from tldet.errors import ConfigError, DataError
from tldet.system.output import make_folder
from tldet.transfer.class_match import MatchSettings, differing_in_case, few, match_classes
from tldet.workflows.merge.notes import shared_note, split_notes
from tldet.workflows.merge.report import changed_ids, split_row

log = logging.getLogger(__name__)
TRAIN, VAL = "train.json", "val.json"


@dataclass(frozen=True)
class ExtendInput:
    """Input datasets.

    Attributes:
        new: images with objects of new classes.
        replay: images annotated for old classes, or None.
        val: validation images.
        old_val: further validation images for old classes, or None.
        own: validation data of the original detector, used if old classes have no other validation images.
        sources: user datasets of the images; see :mod:`tldet.data.relabeled`.
    """

    new: Split
    replay: Split | None
    val: Split
    old_val: Split | None
    own: Split | None
    sources: Sources = field(default_factory=dict)


@dataclass(frozen=True)
class ExtendData:
    """Written datasets, the old and new classes in label order, and the user datasets of the images."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    train: Split
    val: Split
    images: int
    sources: Sources = field(default_factory=dict)


def prepare_data(
    given: ExtendInput,
    old: Mapping[str, int],
    match: MatchSettings,
    out: Path,
    track: Track = iter,
    *,
    missing: bool = False,
) -> ExtendData:
    """Write ``train.json`` and ``val.json`` to a folder.

    A class without objects in a JSON counts as not annotated in it, unless an image lists it in
    ``labeled_category_ids``.

    Args:
        given: the input datasets.
        old: category id of each class of the original detector, in label order.
        match: class aliases and name folding, which apply to the new data (``given.new`` and ``given.val``). In replay,
            ``old_val`` and ``own``, the classes must have exactly the names in the original detector.
        out: the folder.
        track: shows progress of comparing images.
        missing: images may be missing; training and evaluation skip them.

    Raises:
        DataError: there is no new class, no object of a new class, or an unknown class in the replay images.
        ConfigError: the classes cannot be matched.
    """
    # Images of user datasets are not files; image files are checked before training.
    missing = missing or bool(given.sources)
    opened = partial(open_merge_source, missing=missing)
    train = [opened(one) for one in (given.new, given.replay) if one is not None]
    val = [opened(one) for one in (given.val, given.old_val) if one is not None]
    renamed = _renamed([train[0], val[0]], list(old), match)
    if (own := _own_validation(given, val, renamed, old)) is not None:
        val.append(opened(own))
    sources = [*train, *val]
    records = [{"id": key, "name": name} for name, key in old.items()]
    lists = [_named(one, renamed if one is train[0] or one is val[0] else {}) for one in sources]
    merged = merge_classes([records, *lists], {})
    classes = MergedClasses(merged.records, merged.tables[1:])
    new = _new_classes(sources[0], classes, old)
    if given.replay:
        _check_replay(sources[1], classes, [*old, *new])
    known = {key for key, name in classes.names.items() if name in old or name in new}
    sources = [_stating(source, table, known) for source, table in zip(sources, classes.tables, strict=True)]
    for one in changed_ids(sources, classes):
        log.info("%s: category %d %r becomes %d %r", one.path, one.old_id, one.old_name, one.new_id, one.new_name)
    same = alike(sources, track, missing=missing)
    images = _write(sources, same, len(train), classes, make_folder(out))
    return ExtendData(tuple(old), tuple(new), Split(out / TRAIN, out), Split(out / VAL, out), images, given.sources)


def _own_validation(
    given: ExtendInput, val: Sequence[MergeSource], renamed: Mapping[str, str], old: Collection[str]
) -> Split | None:
    """Return the validation data of the original detector if old classes have no other validation images."""
    there = {renamed.get(name, name) for name in _used(val[0])}.union(*(_used(one) for one in val[1:]))
    missing = sorted(set(old) - there)
    if not missing or given.own is None or given.old_val is not None:
        return None
    log.info("%s: validation data of the original detector, used for %s", given.own.annotations, few(missing))
    return given.own


def _used(source: MergeSource) -> set[str]:
    """Return the names of categories with objects, not counting crowd regions."""
    ids = set(source.category_ids[~source.crowd].tolist())
    return {record["name"] for record in source.categories if record["id"] in ids}


def _named(source: MergeSource, renamed: Mapping[str, str]) -> list[Record]:
    """Return the categories of a source with renamed classes."""
    return [{**record, "name": renamed.get(record["name"], record["name"])} for record in source.categories]


def _renamed(sources: Sequence[MergeSource], old: Sequence[str], match: MatchSettings) -> dict[str, str]:
    """Map differently named classes of the new data to old classes.

    Raises:
        ConfigError: an alias maps one old class to another, or the classes cannot be matched.
    """
    if taken := [name for name, target in match.aliases.items() if name in old and target != name]:
        raise ConfigError(
            f"class alias {taken[0]!r} -> {match.aliases[taken[0]]!r}: {taken[0]!r} is a class of the checkpoint "
            "itself; if it means another class in the new data, rename the category there"
        )
    names = list(dict.fromkeys(record["name"] for source in sources for record in source.categories))
    found = {name: origin for name, origin in match_classes(old, names, match).items() if origin not in (None, name)}
    if missed := [name for name in differing_in_case(old, names) if name not in found]:
        log.warning("classes that match old classes only with --fold-names case: %s", few(missed))
    return {name: origin for name, origin in found.items() if origin is not None}


def _new_classes(source: MergeSource, classes: MergedClasses, old: Collection[str]) -> list[str]:
    """Return the new classes, in the order of their category ids.

    Raises:
        DataError: there is no new class, or no object of a new class.
    """
    table, used = classes.tables[0], _used(source)
    own = sorted(source.categories, key=lambda record: int(record["id"]))
    new = {record["name"]: record["name"] in used for record in own if classes.names[table[record["id"]]] not in old}
    if not new:
        raise DataError(
            f"{source.path}: has no new class (classes of the checkpoint: {few(list(old))}); use "
            "`tldet finetune --init-from` to train existing classes"
        )
    if not any(new.values()):
        raise DataError(f"{source.path}: no object of the new classes ({few(list(new))})")
    if empty := [name for name, there in new.items() if not there]:
        log.warning("%s: new classes without objects, which cannot be trained: %s", source.path, few(empty))
    return list(new)


def _check_replay(source: MergeSource, classes: MergedClasses, known: Collection[str]) -> None:
    table = classes.tables[1]
    if unknown := [r["name"] for r in source.categories if classes.names[table[r["id"]]] not in known]:
        raise DataError(
            f"{source.path}: class {unknown[0]!r} of the replay images is neither a class of the checkpoint nor a new "
            f"class ({few(list(known))}); remove it or rename the category; --class-aliases apply to the new data only"
        )


def _stating(source: MergeSource, table: Mapping[int, int], known: Collection[int]) -> MergeSource:
    """Return the source with the annotated classes of each image, limited to the ``known`` merged categories."""
    own = frozenset(key for key, merged in table.items() if merged in known)
    used = own & set(source.category_ids.tolist())
    silent = [record["name"] for record in source.categories if record["id"] in own - used]
    if silent and None in source.labeled:
        log.info("%s: no object of %s; treated as not annotated in this file", source.path, few(silent))
    return replace(source, labeled=[used if one is None else one & own for one in source.labeled])


def _write(
    sources: Sequence[MergeSource], same: Sequence[NDArray[np.int64]], train: int, classes: MergedClasses, out: Path
) -> int:
    """Write both files; return the number of training images."""
    counts = []
    for name, chosen in ((TRAIN, range(train)), (VAL, range(train, len(sources)))):
        ours = np.concatenate([same[n] for n in chosen])
        joined = join([sources[n] for n in chosen], [classes.tables[n] for n in chosen], ours)
        for note in _write_one(out / name, joined, classes):
            log.info("%s", note)
        counts.append((len(joined.firsts), ours))
    if both := len(np.intersect1d(counts[0][1], counts[1][1])):
        log.warning("%s", shared_note(TRAIN, VAL, both))
    return counts[0][0]


def _write_one(path: Path, joined: Joined, classes: MergedClasses) -> Iterator[str]:
    differing = write_joined(path, joined, classes, reference(joined.paths(), path.parent))
    return split_notes(split_row(path.name, path, joined), joined, differing, classes.names)
