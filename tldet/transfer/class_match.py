"""Which class of a start each class of the data is: by name, by alias, or by a name folded."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tldet.errors import ConfigError
from tldet.system.inputs import read_file

if TYPE_CHECKING:
    from rich.table import Table

Fold = Literal["case", "plural"]
Origins = dict[str, "str | None"]  # each class of ours to the class of the start that it is, or None


@dataclass(frozen=True)
class MatchSettings:
    """The ``class_match`` section of a config: how classes are known again in a detector that training starts from.

    Names are compared letter for letter where nothing else is said.

    Attributes:
        aliases: class of the data to the class of the start whose rows it takes.
        fold: names that differ in letter "case" only, or in that one is the regular English "plural" of the other, are
            the same too; they are looked for only where neither an alias nor the very name was found.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    fold: Sequence[Fold] = ()


def origins(old_names: Sequence[str | None], new_names: Sequence[str], settings: MatchSettings) -> Origins:
    """The class of the start that each class of the data is, None for a new one.

    Args:
        old_names: classes of the start; None where nobody named one.
        new_names: classes of the data.
        settings: how they are compared.

    Raises:
        ConfigError: an alias names a class that is not there, or folded names fit more than one class.
    """
    old = [name for name in old_names if name is not None]
    _check_aliases(settings.aliases, old, new_names)
    known = {name: settings.aliases.get(name, name if name in old else None) for name in new_names}
    if settings.fold:
        unknown = [name for name in new_names if known[name] is None]
        known |= _folded(old, unknown, settings.fold)
        _check_folded(known, unknown)
    return known


def _check_aliases(aliases: Mapping[str, str], old: Sequence[str], new: Sequence[str]) -> None:
    for mine, theirs in aliases.items():
        for name, names, other, whose in ((mine, new, old, "the data"), (theirs, old, new, "the start")):
            if name in names:
                continue
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"its classes are {few(names)}"
            if name in other and not near:
                hint = "the form is {class of the data: class of the start}"
            raise ConfigError(f"class alias {mine!r} -> {theirs!r}: {whose} has no class {name!r}; {hint}")


def _folded(old: Sequence[str], unknown: Iterable[str], fold: Sequence[Fold]) -> Origins:
    forms: dict[str, set[str]] = defaultdict(set)  # what a name may look like, to the names that may look so
    for name in old:
        for form in _forms(name, fold):
            forms[form].add(name)
    singular = {_cased(name, fold): name for name in old}
    found: Origins = {}
    for name in unknown:
        fits = set(forms[_cased(name, fold)]) | {singular[form] for form in _forms(name, fold) if form in singular}
        if len(fits) > 1:
            raise ConfigError(
                f"class {name!r} fits {' and '.join(map(repr, sorted(fits)))} of the start by {' and '.join(fold)}; "
                "say which by a class alias"
            )
        found[name] = next(iter(fits), None)
    return found


def _check_folded(known: Origins, folded: Iterable[str]) -> None:
    """Folding may not give two classes the same rows; aliases may."""
    for name in folded:
        same = [other for other, old in known.items() if old is not None and old == known[name]]
        if len(same) > 1:
            raise ConfigError(
                f"classes {' and '.join(map(repr, same))} all fit {known[name]!r} of the start when names are folded; "
                "fold less, or say by class aliases which is which"
            )


def _cased(name: str, fold: Sequence[Fold]) -> str:
    return name.casefold() if "case" in fold else name


def _forms(name: str, fold: Sequence[Fold]) -> set[str]:
    """The folded name, and its regular plurals where these count."""
    word = _cased(name, fold)
    ends = (f"{word}s", f"{word}es", f"{word[:-1]}ies" if word.endswith("y") else word)
    return {word, *ends} if "plural" in fold else {word}


def but_for_case(old_names: Sequence[str | None], new_names: Sequence[str]) -> list[str]:
    """The names of ``new_names`` that ``old_names`` has in another letter case only."""
    known = {name.casefold() for name in old_names if name is not None}
    return [name for name in new_names if name not in old_names and name.casefold() in known]


def few(names: Sequence[str]) -> str:
    """The first of some names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "none"


def read_class_aliases(path: str | Path) -> dict[str, str]:
    """Class aliases from a file: a JSON object, or a line ``new name: old name`` for each; ``#`` begins a comment.

    Raises:
        ConfigError: it cannot be read, or something in it is no pair of names, or a name comes twice.
    """
    try:
        text = read_file(path, ConfigError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error}") from None
    pairs = _json_pairs(path, text) if text.lstrip().startswith("{") else list(_line_pairs(path, text))
    aliases: dict[str, str] = {}
    for mine, theirs in pairs:
        if not isinstance(theirs, str) or not mine or not theirs:
            raise ConfigError(
                f"{path}: must give each class of the data a class of the start, not {mine!r}: {theirs!r}"
            )
        if mine in aliases:
            raise ConfigError(f"{path}: gives class {mine!r} twice")
        aliases[mine] = theirs
    return aliases


def _json_pairs(path: str | Path, text: str) -> list[tuple[str, Any]]:
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: no valid JSON: {error}") from None
    return pairs


def _line_pairs(path: str | Path, text: str) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        mine, colon, theirs = (part.strip() for part in content.partition(":"))
        if content and not colon:
            raise ConfigError(f"{path}:{number}: must look like 'new name: old name', not {content!r}")
        if content:
            yield mine.strip("'\""), theirs.strip("'\"")


def class_table(known: Mapping[str, str | None], source: str) -> Table:
    """Where each class comes from, as a rich table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    carried = sum(old is not None for old in known.values())
    table = Table(
        title=f"{carried} of {len(known)} classes carried over", caption=Text(f"from {source}"), box=SIMPLE_HEAD
    )
    table.add_column("class")
    table.add_column("starts as")
    for name, old in known.items():
        table.add_row(Text(name), Text("new" if old is None else "carried" if old == name else f"carried from {old}"))
    return table
