"""Build the components and settings of a checked config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmengine.registry import Registry

from tldet.config.check import dataclass_in, parameters, takes_any
from tldet.errors import ConfigError
from tldet.plugins import lookup
from tldet.registry import INTERFACES

_T = TypeVar("_T")


def build(registry: Registry, section: Mapping[str, Any], path: str = "", /, **supplied: Any) -> Any:
    """Build the registered component that ``section["type"]`` names, and check its interface.

    Args:
        registry: registry of the component.
        section: its ``type`` and values.
        path: dotted path of the section, for messages; a component that builds others gives paths within itself.
        supplied: arguments that code supplies.

    Raises:
        ConfigError: the component rejects its values, does not take the supplied arguments, or its interface is
            incomplete; the message names it.
    """
    values = dict(section)
    name = values.pop("type")
    target, label = lookup(registry, name), f"{registry.name} {name}"
    if target is None:
        raise KeyError(name)
    prefix = f"{path}: " if path else ""
    try:
        arguments = {**_convert(target, values), **supplied}
        inspect.signature(target).bind(**arguments)
        built = target(**arguments)
    except ConfigError as error:
        if not path:
            raise
        raise ConfigError(f"{path}.{error}") from error
    except ValueError as error:
        key, why = _reason(error)
        raise ConfigError(f"{path}{key and '.'}{key}: {label}: {why}" if path else f"{label}: {why}") from error
    except TypeError as error:
        if (problem := _call_problem(str(error), target, supplied)) is None:
            raise
        raise ConfigError(f"{prefix}{label}{problem}") from error
    check_interface(built, registry.name, f"{prefix}{label}")
    return built


def _call_problem(text: str, target: Callable[..., Any], supplied: Mapping[str, Any]) -> str | None:
    """Describe arguments that a component does not take, from the text of a TypeError; None for other TypeErrors."""
    known = parameters(target)
    missing = [] if takes_any(target) else [name for name in supplied if name not in known]
    if missing:
        return f" must take {', '.join(supplied)}, which tldet passes; {missing[0]} is missing"
    return f": {text}" if any(one in text for one in CALL_ERRORS) else None


CALL_ERRORS = ("unexpected keyword argument", "missing a required argument", "required positional argument")


def check_interface(component: Any, kind: str, label: str) -> None:
    """Check that a component has the attributes and methods of its interface.

    Args:
        component: the component.
        kind: name of its registry.
        label: its name in messages.

    Raises:
        ConfigError: an attribute or method is missing; the message names it.
    """
    needed = INTERFACES.get(kind, ())
    if missing := [name for name in needed if not _has(component, name)]:
        raise ConfigError(f"{label} has no {missing[0]}; a {kind} needs {', '.join(needed)}")


def _has(component: Any, name: str) -> bool:
    """Return True if a component has an attribute that is not an abstract method."""
    method = getattr(type(component), name, None)
    abstract = getattr(method, "__isabstractmethod__", False) or getattr(method, "__name__", "") == UNIMPLEMENTED
    return not abstract and getattr(component, name, None) is not None


UNIMPLEMENTED = "_forward_unimplemented"  # name of ``forward`` in a torch module that does not define it


def _reason(error: ValueError) -> tuple[str, str]:
    """Return the invalid key, if pydantic (used by albumentations) names one, and the reason in one line."""
    details: list[Any] = getattr(error.__cause__, "errors", list)()
    first: dict[str, Any] = details[0] if details else {"loc": (), "msg": str(error)}
    key = str(first["loc"][0]) if first["loc"] else ""
    value = f", not {first['input']!r}" if "input" in first and key else ""
    return key, " ".join(f"{first['msg']}{value}".split())


def build_settings(settings: Callable[..., _T], section: Mapping[str, Any]) -> _T:
    """Build a settings dataclass from its section, with nested dataclasses.

    Raises:
        ConfigError: a value is invalid; the message names the key.
    """
    return settings(**_convert(settings, section))


def _convert(target: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    hints = parameters(target)
    converted = dict(values)
    for key, value in values.items():
        nested = dataclass_in(hints[key][0]) if key in hints else None
        if nested is not None and isinstance(value, Mapping):
            try:
                converted[key] = build_settings(nested, value)
            except ConfigError as error:
                raise ConfigError(f"{key}.{error}") from error
    return converted
