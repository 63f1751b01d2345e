"""Sections of a checked config made into objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmengine.registry import Registry

from tldet.config.check import dataclass_in, parameters
from tldet.errors import ConfigError

T = TypeVar("T")


def build(registry: Registry, section: Mapping[str, Any], **supplied: Any) -> Any:
    """The registered part that ``section["type"]`` names, built from the rest and what code supplies.

    Raises:
        ConfigError: the part refuses its values.
    """
    values = dict(section)
    registry.import_from_location()
    name = values.pop("type")
    target = registry.module_dict[name]
    try:
        return target(**_convert(target, values), **supplied)
    except ValueError as error:
        raise ConfigError(f"{registry.name} {name}: {error}") from error


def build_settings(settings: Callable[..., T], section: Mapping[str, Any]) -> T:
    """A settings dataclass from its section, nested ones included."""
    return settings(**_convert(settings, section))


def _convert(target: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    hints = parameters(target)
    converted = dict(values)
    for key, value in values.items():
        nested = dataclass_in(hints[key][0]) if key in hints else None
        if nested is not None and isinstance(value, Mapping):
            converted[key] = build_settings(nested, value)
    return converted
