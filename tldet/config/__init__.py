"""Configs: read without running code, checked key by key, and built into components."""

from tldet.config.build import build, build_settings
from tldet.config.check import ComponentType, validate_config
from tldet.config.files import Config, find, option_value, override, parse_options, read_config
from tldet.config.ranges import require_range, require_ranges

__all__ = [
    "ComponentType",
    "Config",
    "build",
    "build_settings",
    "find",
    "option_value",
    "override",
    "parse_options",
    "read_config",
    "require_range",
    "require_ranges",
    "validate_config",
]
