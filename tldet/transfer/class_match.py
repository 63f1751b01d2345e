"""Matching of classes between the data and a detector checkpoint: by name, by alias, or ignoring case or plural."""

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
from tldet.text import counted

if TYPE_CHECKING:
    from rich.table import Table

Fold = Literal["case", "plural"]
ClassMap = dict[str, "str | None"]  # class of the data -> class of the initial weights, or None for a new class


@dataclass(frozen=True)
class MatchSettings:
    """The ``class_match`` section of a config: matching of the classes of the data to those of the initial weights.

    By default, names must be equal.

    Attributes:
        aliases: class of the data -> class of the initial weights.
        fold: also match names that differ only in letter "case", or of which one is the regular English "plural" of the
            other. Applies to classes without an alias and without an equal name.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    fold: Sequence[Fold] = ()


def match_classes(old_names: Sequence[str | None], new_names: Sequence[str], settings: MatchSettings) -> ClassMap:
    """Match each class of the data to a class of the initial weights; None for a new class.

    Args:
        old_names: classes of the initial weights; None for a class without a name.
        new_names: classes of the data.
        settings: rules of matching.

    Raises:
        ConfigError: an alias names an unknown class, or a name matches several classes ignoring case or plural.
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
    for new_name, old_name in aliases.items():
        for name, names, other, owner in (
            (new_name, new, old, "the data"),
            (old_name, old, new, "the initial weights"),
        ):
            if name in names:
                continue
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"classes: {few(names)}"
            if name in other and not near:
                hint = "an alias has the form {class of the data: class of the initial weights}"
            raise ConfigError(f"class alias {new_name!r} -> {old_name!r}: no class {name!r} in {owner}; {hint}")


def _folded(old: Sequence[str], unknown: Iterable[str], fold: Sequence[Fold]) -> ClassMap:
    forms: dict[str, set[str]] = defaultdict(set)  # form of a name -> names with this form
    for name in old:
        for form in _forms(name, fold):
            forms[form].add(name)
    singular = {_cased(name, fold): name for name in old}
    found: ClassMap = {}
    for name in unknown:
        fits = set(forms[_cased(name, fold)]) | {singular[form] for form in _forms(name, fold) if form in singular}
        if len(fits) > 1:
            raise ConfigError(
                f"class {name!r} matches {' and '.join(map(repr, sorted(fits)))} of the initial weights ignoring "
                f"{' and '.join(fold)}; choose one with a class alias"
            )
        found[name] = next(iter(fits), None)
    return found


def _check_folded(known: ClassMap, folded: Iterable[str]) -> None:
    """Reject two classes that match the same class ignoring case or plural; aliases may do that."""
    for name in folded:
        same = [other for other, old in known.items() if old is not None and old == known[name]]
        if len(same) > 1:
            raise ConfigError(
                f"classes {' and '.join(map(repr, same))} all match {known[name]!r} of the initial weights ignoring "
                "case or plural; use class aliases instead of --fold-names"
            )


def _cased(name: str, fold: Sequence[Fold]) -> str:
    return name.casefold() if "case" in fold else name


def _forms(name: str, fold: Sequence[Fold]) -> set[str]:
    """Return the folded name and, if ``fold`` contains "plural", its regular plurals."""
    word = _cased(name, fold)
    ends = (f"{word}s", f"{word}es", f"{word[:-1]}ies" if word.endswith("y") else word)
    return {word, *ends} if "plural" in fold else {word}


def differing_in_case(old_names: Sequence[str | None], new_names: Sequence[str]) -> list[str]:
    """Return the names of ``new_names`` that ``old_names`` contains only in another letter case."""
    known = {name.casefold() for name in old_names if name is not None}
    return [name for name in new_names if name not in old_names and name.casefold() in known]


def few(names: Sequence[str]) -> str:
    """List the first five names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "none"


def read_class_aliases(path: str | Path) -> dict[str, str]:
    """Read class aliases from a file: a JSON object, or lines ``new name: old name`` with comments after ``#``.

    Raises:
        ConfigError: the file cannot be read, an entry is not a pair of names, or a name is repeated.
    """
    try:
        text = read_file(path, ConfigError).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error}") from None
    pairs = _json_pairs(path, text) if text.lstrip().startswith("{") else list(_line_pairs(path, text))
    aliases: dict[str, str] = {}
    for new_name, old_name in pairs:
        if not isinstance(old_name, str) or not new_name or not old_name:
            raise ConfigError(
                f"{path}: must map classes of the data to those of the initial weights, not {new_name!r}: {old_name!r}"
            )
        if new_name in aliases:
            raise ConfigError(f"{path}: class {new_name!r} is repeated")
        aliases[new_name] = old_name
    return aliases


def _json_pairs(path: str | Path, text: str) -> list[tuple[str, Any]]:
    try:
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: invalid JSON: {error}") from None
    return pairs


def _line_pairs(path: str | Path, text: str) -> Iterable[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        new_name, colon, old_name = (part.strip() for part in content.partition(":"))
        if content and not colon:
            raise ConfigError(f"{path}:{number}: must look like 'new name: old name', not {content!r}")
        if content:
            yield new_name.strip("'\""), old_name.strip("'\"")


def class_match_table(known: Mapping[str, str | None], source: str) -> Table:
    """Return the class of the initial weights for each class as a rich table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    copied = sum(old is not None for old in known.values())
    title = f"classifier weights copied for {copied} of {counted(len(known), 'class', 'classes')}"
    table = Table(title=title, caption=Text(f"from {source}"), box=SIMPLE_HEAD)
    table.add_column("class")
    table.add_column("initial weights")
    for name, old in known.items():
        table.add_row(Text(name), Text("new" if old is None else "copied" if old == name else f"copied from {old}"))
    return table
