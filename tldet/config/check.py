"""Check of every config key against the constructor that receives it, before training starts."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from tldet.config.files import Config, neighbors
from tldet.errors import ConfigError
from tldet.plugins import lookup, names_in

IMPORTS = "imports"  # top-level key: external packages, see tldet.plugins


@dataclass(frozen=True)
class ComponentType:
    """Component that is built from a config section.

    Attributes:
        target: registry (``type`` in the section names the component) or callable.
        supplied: parameters that tldet supplies and the config must not set.
        required: the section must exist.
        shared: callable whose parameters are allowed for every component of the registry.
    """

    target: Any
    supplied: Collection[str] = ()
    required: bool = True
    shared: Any = None


@dataclass(frozen=True)
class Problem:
    """Problem with one key."""

    path: str
    text: str


def validate_config(config: Config, schema: Mapping[str, ComponentType]) -> None:
    """Check a config against a schema: component type by dotted section, with ``*`` for all items of a list.

    Raises:
        ConfigError: a key or type is unknown, missing or wrong. Each problem is one line with the dotted path, the file
            that set the key, and the most similar known name.
    """
    problems = list(_unknown_keys({k: v for k, v in config.data.items() if k != IMPORTS}, "", sorted(schema)))
    for pattern, part in schema.items():
        found = list(_sections(config.data, pattern.split(".")))
        if not found and part.required and "*" not in pattern:
            problems.append(Problem(pattern, "is missing"))
        for path, section in found:
            problems += _check_part(section, path, part)
        problems += _no_lists(config.data, pattern, {p.path for p in problems})
    if problems:
        lines = [f"{p.path}: {p.text} (in {config.origin(p.path)})" for p in problems]
        raise ConfigError("\n".join(dict.fromkeys(lines)))


def parameters(target: Callable[..., Any], supplied: Collection[str] = ()) -> dict[str, tuple[Any, bool]]:
    """Return each parameter that a config may set: name to (type hint, required).

    A class that passes ``**kwargs`` on to its base class has the parameters of the base class too.
    """
    found: dict[str, tuple[Any, bool]] = {}
    for function, signature in _constructors(target):
        hints = _hints(function)
        for p in signature.parameters.values():
            if p.kind not in ANY and p.name not in supplied and p.name not in found:
                found[p.name] = (hints.get(p.name, Any), p.default is inspect.Parameter.empty)
    return found


def takes_any(target: Callable[..., Any]) -> bool:
    """Return True if a component takes keyword arguments of any name (``**kwargs``)."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(target).parameters.values())


ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _constructors(target: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], inspect.Signature]]:
    """Yield the constructor, and those of the base classes as far as ``**kwargs`` is passed on."""
    signature = inspect.signature(target)
    own = target.__init__ if inspect.isclass(target) and not dataclasses.is_dataclass(target) else target
    yield own, signature
    if not inspect.isclass(target) or not takes_any(target):
        return
    defined = [cls.__dict__["__init__"] for cls in target.__mro__[:-1] if "__init__" in cls.__dict__]
    for function in defined[1:]:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        yield function, signature.replace(parameters=parameters[1:])  # without self
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            return


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return type hints; empty if they cannot be resolved (external code that imports names for type checkers only)."""
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return {}


_LISTED = 20  # most names that a message lists


def nearest(name: object, names: Collection[str]) -> str:
    """Return a hint with the most similar names."""
    near = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.55)
    near = [n for n in names if n == "".join(word[:1] for word in str(name).split("_"))] or near  # learning_rate is lr
    if near or len(names) <= _LISTED:
        return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(names))}"
    return f"nearest: {', '.join(neighbors(str(name), names))}"


def _unknown_keys(data: Mapping[str, Any], prefix: str, patterns: Sequence[str]) -> Iterator[Problem]:
    """Yield the keys outside component sections that no pattern allows."""
    depth = prefix.count(".")
    known = {p.split(".")[depth] for p in patterns if p.startswith(prefix) and len(p.split(".")) > depth}
    for key, value in data.items():
        path = f"{prefix}{key}"
        if key not in known:
            yield Problem(path, f"unknown key; {nearest(key, known)}")
        elif not any(p == path or p.startswith(f"{path}.*") for p in patterns):
            if isinstance(value, Mapping):
                yield from _unknown_keys(value, path + ".", patterns)
            else:
                yield Problem(path, f"must be a section (a dict), not {value!r}")


def _sections(node: Any, steps: Sequence[str], path: str = "") -> Iterator[tuple[str, Any]]:
    if not steps:
        yield path.rstrip("."), node
    elif steps[0] == "*" and isinstance(node, (list, tuple)):
        for number, item in enumerate(node):
            yield from _sections(item, steps[1:], f"{path}{number}.")
    elif isinstance(node, Mapping) and node.get(steps[0]) is not None:
        yield from _sections(node[steps[0]], steps[1:], f"{path}{steps[0]}.")


def _no_lists(data: Mapping[str, Any], pattern: str, known: Collection[str]) -> Iterator[Problem]:
    """Yield values that ``*`` in a pattern requires to be lists; paths in ``known`` are already reported."""
    above, star, _ = pattern.partition(".*")
    for path, node in _sections(data, above.split(".")) if star else ():
        if not isinstance(node, (list, tuple)) and path not in known:
            yield Problem(path, f"must be a list of dicts, not {node!r}")


def _check_part(section: Any, path: str, part: ComponentType) -> list[Problem]:
    if not isinstance(section, Mapping):
        return [Problem(path, f"must be a dict, not {section!r}")]
    section, target = dict(section), part.target
    if hasattr(target, "module_dict"):
        found = _component(target, path, section.pop("type", None))
        if isinstance(found, Problem):
            return [found]
        target = found
    return list(_check_arguments(section, path, target, part.supplied, part.shared))


def _component(registry: Any, path: str, name: Any) -> Any:
    """Return the component of a section, or the problem with its ``type``."""
    if not isinstance(name, str):
        wrong = "is missing" if name is None else f"must be a name, not {name!r}"
        return Problem(f"{path}.type", f"{wrong}; known: {', '.join(names_in(registry))}")
    try:
        found = lookup(registry, name)
    except ConfigError as error:
        return Problem(f"{path}.type", str(error))
    if found is None:
        outside = "; external code needs --import PACKAGE, or imports in the config"
        return Problem(
            f"{path}.type", f"no {registry.name} is called {name!r}; {nearest(name, names_in(registry))}{outside}"
        )
    return found


def _check_arguments(
    section: Mapping[str, Any], path: str, target: Callable[..., Any], supplied: Collection[str], shared: Any = None
) -> Iterator[Problem]:
    known = parameters(target, supplied)
    if shared is not None:
        known = {**{name: (hint, False) for name, (hint, _) in parameters(shared).items()}, **known}
    for key, value in section.items():
        key_path = f"{path}.{key}"
        if key not in known:
            if not takes_any(target):
                yield Problem(key_path, f"unknown key; {nearest(key, known)}")
            continue
        hint = known[key][0]
        nested = dataclass_in(hint)
        if nested is not None and isinstance(value, Mapping):
            yield from _check_arguments(value, key_path, nested, ())
        elif not fits(value, hint):
            yield Problem(key_path, f"must be {describe(hint)}, not {value!r}")
    for key, (_, required) in known.items():
        if required and key not in section:
            yield Problem(f"{path}.{key}", "is missing")


def dataclass_in(hint: Any) -> type[Any] | None:
    """Return the dataclass in a type hint such as ``X | None``; None if there is none."""
    options = get_args(hint) or (hint,)
    return next((o for o in options if inspect.isclass(o) and dataclasses.is_dataclass(o)), None)


def fits(value: Any, hint: Any) -> bool:
    """Return True if a literal has the hinted type; accepts an int as float and a list as tuple."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if origin is tuple and arguments[-1] is not Ellipsis:
        right = isinstance(value, (list, tuple)) and len(value) == len(arguments)
        return right and all(fits(item, one) for item, one in zip(value, arguments, strict=True))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(v, arguments[1]) for v in value.values())
    if inspect.isclass(origin) and issubclass(origin, Collection):
        return isinstance(value, (list, tuple)) and all(fits(item, arguments[0]) for item in value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if inspect.isclass(hint) else True


def describe(hint: Any) -> str:
    """Describe a type hint for messages."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(a) for a in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(a) for a in get_args(hint))
    if hint is type(None):
        return "None"
    return hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint).replace("collections.abc.", "")
