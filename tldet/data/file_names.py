"""Matching of the file names in a JSON, as annotation tools write them, to files on disk.

Names are tried unchanged first, then with these rules in this order: backslashes as slashes, ``%20`` and other percent
escapes decoded, the folders of another machine dropped from absolute paths, letter case ignored. Rules are
combined. The first combination that fits all images of a JSON is used and logged.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, takewhile
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from tldet.coco.names import fold
from tldet.errors import DataError
from tldet.system.inputs import Kind, entry_kind, is_file, is_folder
from tldet.text import counted

log = logging.getLogger(__name__)
ABSOLUTE = re.compile(r"[A-Za-z][\w+.-]*:/|/")  # a drive, a URL or a path from the root, with slashes


class Listing:
    """Cached directory listings. Hidden folders and ``__MACOSX`` are left out."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {}
        self._folded: dict[str, dict[str, str]] = {}

    def files(self, folder: str) -> frozenset[str]:
        """Return the file names in a folder; none if it does not exist."""
        return self._entries(folder)[0]

    def folders(self, folder: str) -> tuple[str, ...]:
        """Return the sorted names of the subfolders of a folder."""
        return self._entries(folder)[1]

    def _entries(self, folder: str) -> tuple[frozenset[str], tuple[str, ...]]:
        if folder not in self._known:
            found: dict[Kind, list[str]] = {"file": [], "folder": [], "other": []}
            try:
                with os.scandir(folder or ".") as entries:
                    for entry in entries:
                        found[entry_kind(entry)].append(entry.name)
            except (OSError, ValueError):  # ValueError: a zero byte in the name
                pass
            visible = sorted(name for name in found["folder"] if not is_hidden(name))
            self._known[folder] = frozenset(found["file"]), tuple(visible)
        return self._known[folder]

    def count(self, folder: Path, names: _Names) -> int:
        """Count the names that are files in ``folder``."""
        groups = ((os.path.normpath(folder / parent), bases) for parent, bases in names.by_parent.items())
        return sum(len(self._found(directory, bases, names.fold)) for directory, bases in groups)

    def on_disk(self, folder: Path, names: _Names) -> list[str]:
        """Return the names as they are on disk; names without a file are unchanged."""
        if not names.fold:
            return names.names
        found: dict[str, str] = {}
        for parent, bases in names.by_parent.items():
            directory = self._real(os.path.normpath(folder / parent))
            files = self._fold(directory)
            inside = os.path.relpath(directory, folder)
            for base in bases:
                if fold(base) in files:
                    found[f"{parent}/{base}" if parent else base] = PurePosixPath(inside, files[fold(base)]).as_posix()
        return [found.get(name, name) for name in names.names]

    def _found(self, directory: str, bases: frozenset[str], folded: bool) -> set[str] | frozenset[str]:
        if not folded:
            return bases & self.files(directory)
        files = self._fold(self._real(directory))
        return {base for base in bases if fold(base) in files}

    def _fold(self, directory: str) -> dict[str, str]:
        """Map folded file names to file names, without names that differ only in letter case."""
        if directory not in self._folded:
            groups: defaultdict[str, list[str]] = defaultdict(list)
            for name in self.files(directory):
                groups[fold(name)].append(name)
            self._folded[directory] = {key: found[0] for key, found in groups.items() if len(found) == 1}
        return self._folded[directory]

    def _real(self, directory: str) -> str:
        """Return the path of a folder on disk, ignoring letter case if it does not exist."""
        path = Path(directory)
        if is_folder(path) or path.parent == path:
            return directory
        parent = self._real(os.fspath(path.parent))
        alike = [name for name in self.folders(parent) if fold(name) == fold(path.name)]
        return os.fspath(Path(parent) / (alike[0] if len(alike) == 1 else path.name))


def is_hidden(name: str) -> bool:
    """Return True for files and folders of systems and editors: ``.git``, ``._train.json``, ``__MACOSX``."""
    return name.startswith(".") or name == "__MACOSX"


@dataclass(frozen=True)
class _Names:
    """File names after applying some rules.

    Attributes:
        names: file name of every image.
        rules: descriptions of the applied rules; empty if the names are unchanged.
        fold: ignore letter case.
        by_parent: distinct file names by folder.
    """

    names: list[str]
    rules: tuple[str, ...]
    fold: bool
    by_parent: dict[str, frozenset[str]]

    @classmethod
    def of(cls, names: list[str], rules: Sequence[str] = (), *, fold: bool = False) -> _Names:
        """Group names by folder."""
        groups: defaultdict[str, set[str]] = defaultdict(set)
        for name in names:
            parent, _, base = name.rpartition("/")
            groups[parent or ("/" if name.startswith("/") else "")].add(base)
        return cls(names, tuple(rules), fold, {parent: frozenset(bases) for parent, bases in groups.items()})

    @property
    def distinct(self) -> int:
        """Number of distinct names."""
        return sum(map(len, self.by_parent.values()))


def variants(names: Sequence[str]) -> Iterator[_Names]:
    """Yield the names unchanged, then after each combination of rules that changes them."""
    tried: set[tuple[bool, int]] = set()
    distinct = len(set(names))
    for folded, machine, escapes, slashes in product((False, True), repeat=4):
        changed, rules = list(names), []
        if slashes:
            changed = [name.replace("\\", "/") for name in changed]
            rules.append("backslashes read as slashes")
        if escapes:
            changed = [unquote(name) for name in changed]
            rules.append("percent escapes decoded")
        for inside, dropped in _without_machine(changed) if machine else [(changed, [])]:
            key = folded, hash(tuple(inside))
            apart = len({fold(name) for name in inside} if folded else set(inside))
            if key not in tried and apart == distinct:  # distinct names stay distinct
                tried.add(key)
                yield _Names.of(inside, [*rules, *dropped, *["letter case ignored"] * folded], fold=folded)


def _without_machine(names: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield names and rule: without the first 1, 2, ... shared folders of absolute paths, then without folders."""
    absolute = [name for name in names if ABSOLUTE.match(name)]
    if not absolute:
        return
    parts = {name: [part for part in name.split("/") if part] for name in absolute}
    levels = zip(*(one[:-1] for one in parts.values()), strict=False)
    common = [one[0] for one in takewhile(lambda level: len(set(level)) == 1, levels)]
    for count in [*range(1, len(common) + 1), None]:
        kept = slice(-1, None) if count is None else slice(count, None)
        rule = "folders dropped" if count is None else f"{'/'.join(common[:count])}/ dropped"
        short = {name: "/".join(one[kept]) for name, one in parts.items()}
        yield [short.get(name, name) for name in names], [f"absolute paths: {rule}"]


def resolve_names(folder: Path, names: Sequence[str], annotations: Path) -> Sequence[str]:
    """Match the file names of a JSON to the files in its image folder; log the rules that are needed.

    The first combination of rules that fits all images is used, or else the one that fits most.

    Args:
        folder: the image folder.
        names: file names in the JSON.
        annotations: the JSON, for the log.

    Returns:
        The names on disk; a missing image keeps its name.
    """
    listing = Listing()
    best, most = _Names.of(list(names)), -1
    for one in variants(names):
        count = listing.count(folder, one)
        if count > most:
            best, most = one, count
        if count == one.distinct:
            break
    if best.rules and most > 0:
        log.info("%s: file names matched to %s with %s", annotations, folder, ", ".join(best.rules))
        return listing.on_disk(folder, best)
    return names


def require_images(folder: Path, names: Sequence[str], annotations: Path) -> None:
    """Raise DataError if images of a JSON are missing in its folder; the message counts them and names the first."""
    missing = [name for name in names if not is_file(folder / name)]
    if missing:
        raise missing_images(folder, missing, len(names), annotations)


def missing_images(folder: Path, missing: Sequence[str], total: int, annotations: Path) -> DataError:
    """Create the error for missing images; it counts them and names the first."""
    named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return DataError(f"{folder}: {len(missing)} of {counted(total, 'image')} of {annotations} missing: {named}")
