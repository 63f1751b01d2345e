"""Configs: loaded without running code, checked key by key, built into parts."""

from tldet.config.build import build, build_settings
from tldet.config.check import Part, check
from tldet.config.files import Config, find, load, option_value, override, parse_options
from tldet.config.ranges import require_range, require_ranges

__all__ = [
    "Config",
    "Part",
    "build",
    "build_settings",
    "check",
    "find",
    "load",
    "option_value",
    "override",
    "parse_options",
    "require_range",
    "require_ranges",
]
