"""Config files: found by path or name, read as literals, merged by mmengine, with the origin of each key.

A config is Python text that only assigns literals (including ``dict(...)`` calls) and names its parents in ``_base_``.
mmengine merges the values but does not read the text, because its reader would execute it.
"""

from __future__ import annotations

import ast
import difflib
import pprint
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.config.literals import TOO_DEEP, literal, read_literals
from tldet.errors import ConfigError
from tldet.system.inputs import exists, is_file, real_path, require_file

_Origins = dict[str, str]
FROM_OPTIONS = "--cfg-options"
MOST_LEVELS = 100  # of _base_ files


@dataclass
class Config:
    """Merged config as plain dicts and lists, with the file that set each key."""

    data: dict[str, Any]
    origins: _Origins = field(default_factory=dict)
    source: str = "config"

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def get(self, path: str, default: Any = None) -> Any:
        """Return the value at a dotted path."""
        node: Any = self.data
        for step in path.split("."):
            if isinstance(node, Mapping) and step in node:
                node = node[step]
            elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
                node = node[int(step)]
            else:
                return default
        return node

    def origin(self, path: str) -> str:
        """Return the file that set the key at a dotted path, or its nearest parent."""
        return next((self.origins[key] for key in (path, *_above(path)) if key in self.origins), self.source)

    def dump(self) -> str:
        """Return Python text that :func:`read_config` reads as the same config."""
        values = (f"{key} = {pprint.pformat(value, width=110, sort_dicts=False)}" for key, value in self.data.items())
        return "\n".join(values) + "\n"


def config_root() -> Path:
    """Return the folder of the shipped configs: in the installed package, or next to it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    return next((p for p in (package / "configs", package.parent / "configs") if p.is_dir()), package / "configs")


def shipped() -> list[str]:
    """Return the names of the shipped detector configs, without ``.py``."""
    root = config_root()
    paths = sorted(p.relative_to(root) for p in root.rglob("*.py"))
    return [p.with_suffix("").as_posix() for p in paths if not {"_base_", "pretrain"} & set(p.parts)]


def find(name: str | Path) -> Path:
    """Find a config by path, by its name among the shipped configs, or by the name of a recipe.

    Raises:
        ConfigError: there is no such config; the message lists the most similar names.
    """
    path = Path(name)
    if is_file(path):
        return path
    for candidate in (config_root() / f"{name}.py", config_root() / "recipes" / f"{name}.py", config_root() / path):
        if is_file(candidate):
            return candidate
    if exists(path):
        require_file(path, ConfigError)
    names = [name.removeprefix("recipes/") for name in shipped()]
    near = ", ".join(neighbors(str(name), names))
    raise ConfigError(f"no config or recipe {str(name)!r}; nearest: {near} (tldet models --detectors lists all)")


def neighbors(name: str, names: Collection[str], count: int = 3) -> list[str]:
    """Return the most similar names, best first; folders, letter case and dashes are ignored."""
    keys = {other: _last_part(other) for other in names}
    near = difflib.get_close_matches(_last_part(name), list(dict.fromkeys(keys.values())), n=count, cutoff=0.0)
    return sorted((other for other in keys if keys[other] in near), key=lambda other: near.index(keys[other]))[:count]


def _last_part(name: str) -> str:
    return name.lower().replace("-", "_").removesuffix(".py").rpartition("/")[2]


def read_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config, its ``_base_`` files first, then ``options`` (dotted path to value) on top.

    Raises:
        ConfigError: a file is missing, is not valid Python, or contains anything but literals.
    """
    path = find(path)
    origins: _Origins = {}
    return override(Config(_merged(path, origins, {}), origins, str(path)), options or {})


def override(config: Config, options: Mapping[str, Any]) -> Config:
    """Return a config with ``options`` (dotted path to value) on top.

    Raises:
        ConfigError: a path of an option leads through a value that is not a section or list.
    """
    if not options:
        return config
    data = _over(f"{FROM_OPTIONS} {', '.join(options)}", config.data, options, lists=True)
    origins = dict(config.origins)
    for key in options:
        origins = {k: v for k, v in origins.items() if not k.startswith(key + ".")}
        origins[key] = FROM_OPTIONS
        for above in _above(key):  # sections created by the option
            origins.setdefault(above, FROM_OPTIONS)
    return Config(data, origins, config.source)


def _above(key: str) -> Iterator[str]:
    """Yield the dotted paths above a key, nearest first."""
    while key := key.rpartition(".")[0]:
        yield key


def _merged(path: Path, origins: _Origins, known: dict[Path, dict[str, Any]], *above: Path) -> dict[str, Any]:
    """Merge a file's values over those of its ``_base_`` files; set the file of each key in ``origins``.

    Each file is read once, however many files have it as their base; its values are kept in ``known``.
    """
    path = real_path(path)
    if path in above:
        raise ConfigError(f"{path}: is its own _base_")
    if len(above) == MOST_LEVELS:
        raise ConfigError(f"{path}: is the _base_ of more than {MOST_LEVELS} files in a row")
    if path not in known:
        known[path] = _over_bases(path, origins, known, *above)
    return known[path]


def _over_bases(path: Path, origins: _Origins, known: dict[Path, dict[str, Any]], *above: Path) -> dict[str, Any]:
    values = read_literals(path)
    below: dict[str, Any] = {}
    for parent in _bases(path, values.pop("_base_", [])):
        part = _merged(parent, origins, known, *above, path)
        if twice := sorted(below.keys() & part.keys()):
            raise ConfigError(f"{path}: {', '.join(twice)} is set by more than one of its _base_ files")
        below.update(part)
    origins.update({key: str(path) for key in dotted_keys(values)})
    return _over(str(path), below, values)


def _bases(path: Path, named: Any) -> list[Path]:
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: _base_ must be a path or a list of paths, not {named!r}")
    parents = [path.parent / name for name in names]
    for name, parent in zip(names, parents, strict=True):
        require_file(parent, ConfigError, f"{path}: _base_ {name!r} ({real_path(parent)})")
    return parents


def _over(source: str, below: Mapping[str, Any], values: Mapping[str, Any], *, lists: bool = False) -> dict[str, Any]:
    """Merge ``values`` over ``below`` with mmengine's rules; with ``lists``, numbers in keys are list indices."""
    from mmengine.config import Config as MMConfig

    try:
        merged = MMConfig(dict(below))
        merged.merge_from_dict(dict(values), allow_list_keys=lists)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(f"{source}: cannot be merged: {' '.join(str(error).split())}") from None
    data: dict[str, Any] = merged.to_dict()
    return data


def dotted_keys(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield every dotted path in nested dicts and lists."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, (list, tuple)):
        items = list(enumerate(value))
    for key, item in items:
        path = f"{prefix}{key}"
        yield path
        yield from dotted_keys(item, path + ".")


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``["a.b=3", "c=[1, 2]"]`` to ``{"a.b": 3, "c": [1, 2]}``; a value that is not a literal is a string.

    Raises:
        ConfigError: a pair has no ``=`` or no key, or a value is nested too deeply.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{FROM_OPTIONS} {pair!r}: must have the form a.b=value")
        options[key.strip()] = _option(key.strip(), text)
    return options


def option_value(options: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key in options, set directly or within a section; None if it is not set."""
    found = None
    for path, value in options.items():
        if path == key:
            found = value
        elif key.startswith(f"{path}.") and isinstance(value, dict):
            found = Config(value).get(key[len(path) + 1 :], found)
    return found


def _option(key: str, text: str) -> Any:
    try:
        return literal(FROM_OPTIONS, ast.parse(text.strip(), mode="eval").body)
    except (ConfigError, SyntaxError, ValueError):
        return {"true": True, "false": False}.get(text.lower(), text)
    except TOO_DEEP:
        raise ConfigError(f"{FROM_OPTIONS} {key}: is nested too deeply") from None
