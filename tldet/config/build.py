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
        ConfigError: the component rejects its values, does not take what code supplies, or lacks a part of its
            interface; one line that names it.
    """
    values = dict(section)
    name = values.pop("type")
    target, given = lookup(registry, name), f"{registry.name} {name}"
    if target is None:
        raise KeyError(name)
    place = f"{path}: " if path else ""
    try:
        arguments = {**_convert(target, values), **supplied}
        inspect.signature(target).bind(**arguments)
        built = target(**arguments)
    except ConfigError as error:
        if not path:
            raise
        raise ConfigError(f"{path}.{error}") from error
    except ValueError as error:
        key, why = _refusal(error)
        raise ConfigError(f"{path}{key and '.'}{key}: {given}: {why}" if path else f"{given}: {why}") from error
    except TypeError as error:
        if (problem := _call_problem(str(error), target, supplied)) is None:
            raise
        raise ConfigError(f"{place}{given}{problem}") from error
    check_interface(built, registry.name, f"{place}{given}")
    return built


def _call_problem(text: str, target: Callable[..., Any], supplied: Mapping[str, Any]) -> str | None:
    """Return why a component does not take its arguments, by the text of a TypeError; None if that is another error."""
    known = parameters(target)
    lacking = [] if takes_any(target) else [name for name in supplied if name not in known]
    if lacking:
        return f" must take {', '.join(supplied)}, which tldet passes; it lacks {lacking[0]}"
    return f": {text}" if any(one in text for one in CALL_ERRORS) else None


CALL_ERRORS = ("unexpected keyword argument", "missing a required argument", "required positional argument")


def check_interface(component: Any, kind: str, given: str) -> None:
    """Check that a component has what its kind must have.

    Args:
        component: the component.
        kind: name of its registry.
        given: its name in messages.

    Raises:
        ConfigError: an attribute or method is missing; the message names it.
    """
    needed = INTERFACES.get(kind, ())
    if missing := [name for name in needed if not _has(component, name)]:
        raise ConfigError(f"{given} has no {missing[0]}; a {kind} needs {', '.join(needed)}")


def _has(component: Any, name: str) -> bool:
    """Return True if a component has an attribute, which is no abstract method."""
    method = getattr(type(component), name, None)
    abstract = getattr(method, "__isabstractmethod__", False) or getattr(method, "__name__", "") == UNIMPLEMENTED
    return not abstract and getattr(component, name, None) is not None


UNIMPLEMENTED = "_forward_unimplemented"  # the forward of a torch module that defines none


def _refusal(error: ValueError) -> tuple[str, str]:
    """The key at fault where pydantic (which albumentations checks with) names one, and why, in one line."""
    details: list[Any] = getattr(error.__cause__, "errors", list)()
    first: dict[str, Any] = details[0] if details else {"loc": (), "msg": str(error)}
    key = str(first["loc"][0]) if first["loc"] else ""
    value = f", not {first['input']!r}" if "input" in first and key else ""
    return key, " ".join(f"{first['msg']}{value}".split())


def build_settings(settings: Callable[..., _T], section: Mapping[str, Any]) -> _T:
    """A settings dataclass from its section, nested ones included.

    Raises:
        ConfigError: it refuses its values; a nested one is named by its key.
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
