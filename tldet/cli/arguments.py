"""Command-line arguments of a request (:mod:`tldet.workflows.requests`)."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tldet.workflows.options import REQUIRED, Option, flag
from tldet.workflows.requests import default_of, options, refuse_conflicts

if TYPE_CHECKING:
    from rich.console import Console


def add_options(parser: ArgumentParser, request: type[Any]) -> None:
    """Add one argument for each option of a request."""
    groups: dict[str, Any] = {"": parser}
    sets: dict[str, Any] = {}
    for name, one in options(request).items():
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group)
        group = groups[one.group]
        if one.exclusive:
            group = sets.get(one.exclusive) or sets.setdefault(one.exclusive, group.add_mutually_exclusive_group())
        add_option(group, name, one, default_of(request, name))


def add_option(group: Any, name: str, one: Option, default: object) -> None:
    """Add one option to a parser or to a group of a parser.

    Args:
        group: the parser or group.
        name: name in Python.
        one: the option.
        default: its default; ``REQUIRED`` if it has none.
    """
    if one.kind is bool:
        _add_flag(group, name, one, default)
        return
    given: dict[str, Any] = {"help": _help(one.help), "metavar": one.metavar, "choices": one.choices or None}
    given["type"] = parser_of(one)
    if one.positional:
        nargs = "+" if one.many else None if default is REQUIRED else "?"
        group.add_argument(name, nargs=nargs, **given)
        return
    given["default"] = None if default is REQUIRED else default
    if one.repeated:
        given |= {"action": "append", "default": []}
    elif one.many:
        given |= {"nargs": "+"} if default else {"nargs": "+", "action": "extend", "default": []}
    elif one.const is not None:
        given |= {"nargs": "?", "const": one.const}
    group.add_argument(flag(name), dest=name, required=default is REQUIRED, **given)


def _add_flag(group: Any, name: str, one: Option, default: object) -> None:
    """Add a flag; one with three states becomes two flags that cannot be combined."""
    if one.off is None:
        group.add_argument(
            flag(name, default), dest=name, action=f"store_{str(default is not True).lower()}", help=_help(one.help)
        )
        return
    both = group.add_mutually_exclusive_group()
    both.add_argument(flag(name), dest=name, action="store_true", default=None, help=_help(one.help))
    both.add_argument(one.off[0], dest=name, action="store_false", help=_help(one.off[1]))


def _help(text: str) -> str:
    """Return a help text for argparse, which formats percent signs."""
    return text.replace("%", "%%")


def parser_of(one: Option) -> Callable[[str], Any]:
    """Return the function that parses a value of an option."""
    if one.file:
        return file_name
    numbers = one.numbers
    if numbers is None:
        return one.kind

    def parsed(text: str) -> Any:
        return text if one.auto and text == "auto" else number(text, one.allowed, numbers.holds, one.kind)

    return parsed


def number(text: str, allowed: str, fits: Callable[[float], bool], kind: Callable[[str], float]) -> float:
    """Parse a number for argparse; ``allowed`` describes the numbers that fit."""
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = float("nan")
    if not fits(value):
        raise ArgumentTypeError(f"must be {allowed}, not {text!r}")
    return value


def file_name(text: str) -> str:
    """Parse the name of an output file; a folder is an error before the work begins."""
    if os.path.isdir(text):  # noqa: PTH112  (Path.is_dir raises OSError if the name is too long)
        raise ArgumentTypeError(f"{text} is a folder; use the name of a file")
    return text


def arguments_of(args: Namespace, request: type[Any], console: Console | None) -> dict[str, Any]:
    """Return the arguments of the function that takes a request, from a command line.

    Raises:
        ConfigError: a config key is set twice.
    """
    table = options(request)
    values = {name: getattr(args, name) for name in table}
    refuse_conflicts(table, values)
    return {**values, "console": console}


def add_import(parser: ArgumentParser) -> None:
    """Add ``--import``."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="import a Python package or file that registers your own components; repeatable",
    )
