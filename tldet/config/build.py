"""Sections of a checked config made into objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmengine.registry import Registry

from tldet.config.check import dataclass_in, parameters
from tldet.errors import ConfigError

T = TypeVar("T")


def build(registry: Registry, section: Mapping[str, Any], path: str = "", /, **supplied: Any) -> Any:
    """The registered part that ``section["type"]`` names, built from the rest and what code supplies.

    Args:
        registry: where the part is looked up.
        section: its ``type`` and values.
        path: the section's dotted path, for messages; a part that builds others gives theirs from itself on.
        supplied: what code supplies.

    Raises:
        ConfigError: the part refuses its values; one line.
    """
    values = dict(section)
    registry.import_from_location()
    name = values.pop("type")
    target = registry.module_dict[name]
    try:
        return target(**_convert(target, values), **supplied)
    except ConfigError as error:
        if not path:
            raise
        raise ConfigError(f"{path}.{error}") from error
    except ValueError as error:
        key, why = _refusal(error)
        place = f"{path}{key and '.'}{key}: " if path else ""
        raise ConfigError(f"{place}{registry.name} {name}: {why}") from error


def _refusal(error: ValueError) -> tuple[str, str]:
    """The key at fault where pydantic (which albumentations checks with) names one, and why, in one line."""
    details: list[Any] = getattr(error.__cause__, "errors", list)()
    first: dict[str, Any] = details[0] if details else {"loc": (), "msg": str(error)}
    key = str(first["loc"][0]) if first["loc"] else ""
    value = f", not {first['input']!r}" if "input" in first and key else ""
    return key, " ".join(f"{first['msg']}{value}".split())


def build_settings(settings: Callable[..., T], section: Mapping[str, Any]) -> T:
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
