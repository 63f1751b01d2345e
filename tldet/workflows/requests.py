"""Requests: the arguments of a command, with the same names and defaults in Python and on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import wraps
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, cast

from tldet.errors import ConfigError
from tldet.workflows.options import (
    CFG_OPTIONS,
    REQUIRED,
    Option,
    described,
    flag,
    format_option,
    option,
    voc_boxes_option,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tldet.data.formats.source import SourceOptions

P = ParamSpec("P")
Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Base class of the arguments of a command, which are checked on construction."""

    console: Console | None = field(
        default=None, compare=False, repr=False, metadata={"help": "shows progress and results; silent when None"}
    )

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: a number is out of range.
        """
        for name, one in options(type(self)).items():
            if (wrong := one.wrong(getattr(self, name))) is not None:
                raise ConfigError(f"{flag(name)} must be {one.allowed}, not {wrong!r}")

    def given(self) -> dict[str, Any]:
        """Return the user-specified options that belong to the record of a run, by their names on the command line."""
        found = {}
        for name, one in options(type(self)).items():
            value, default = getattr(self, name), default_of(type(self), name)
            value = tuple(value) if one.many else value
            if one.recorded and value is not None and value != default:
                shown = str(one.metavar) if one.positional else flag(name, default).removeprefix("--")
                found[shown] = True if default is True else value
        return found

    def overrides(self) -> list[str]:
        """Return the config options ``a.b=c``: those of settings such as ``--batch-size``, then ``--cfg-options``."""
        pairs = []
        for name, one in options(type(self)).items():
            value = getattr(self, name)
            if one.setting and _is_given(value):
                pairs.append(f"{one.sets[0]}={value!r}")
                pairs += [f"{key}=None" for key in one.sets[1:]]
        return [*pairs, *getattr(self, "cfg_options", ())]


@dataclass(frozen=True, kw_only=True)
class DataOptions(Request):
    """Options of a dataset in any format; a command redeclares ``data`` or ``images`` to describe its own use."""

    data: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described("dataset folder with images and annotations, or an annotation file", metavar="DATA"),
    )
    images: str | Path | None = option("image directory (default: found by file names)", metavar="DIR")
    format: str | None = format_option()
    voc_boxes: Literal["continuous", "inclusive"] | None = voc_boxes_option()

    def source_options(self, classes: str | Path | None = None, *, missing: bool | None = None) -> SourceOptions:
        """Return the options for reading the annotations.

        Args:
            classes: see :class:`~tldet.data.formats.source.SourceOptions`, as ``missing``.
            missing: images may be missing; None if the command has no option for it.
        """
        from tldet.data.formats.source import SourceOptions

        return SourceOptions(self.format, self.voc_boxes or "auto", classes, missing)


@dataclass(frozen=True, kw_only=True)
class RunRequest(Request):
    """Base class of the arguments of a single training run."""

    callbacks: Sequence[Any] = field(
        default=(),
        compare=False,
        repr=False,
        metadata={"help": "objects derived from mmengine's ``Hook``, called during training"},
    )


def options(request: type[Any]) -> dict[str, Option]:
    """Return the options of a request by name, those of its base classes first, in the order of the bases."""
    found = {one.name: one.metadata["option"] for one in fields(request) if "option" in one.metadata}
    order = [name for base in request.__bases__ if is_dataclass(base) for name in options(base)]
    return {name: found[name] for name in dict.fromkeys([*order, *found])}


def default_of(request: type[Any], name: str) -> Any:
    """Return the default of an option; ``REQUIRED`` if it has none."""
    default = next(one.default for one in fields(request) if one.name == name)
    return REQUIRED if default is MISSING else default


def refuse_conflicts(table: Mapping[str, Option], values: Mapping[str, Any]) -> None:
    """Refuse ``--cfg-options`` that set a key twice, or a key that another option sets.

    Raises:
        ConfigError: a key is set twice.
    """
    keys = _keys(values.get("cfg_options", ()))
    for name, one in table.items():
        for path, key in product(one.sets if _is_given(values.get(name)) else (), keys):
            if _within(key, path) or _within(path, key):
                raise ConfigError(f"{flag(name)} and {CFG_OPTIONS} {key} both set {path}; leave out one of them")


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != [] and value != ()


def _within(key: str, section: str) -> bool:
    """Return True if a dotted key is that of a section or of a key inside it."""
    return f"{key}.".startswith(f"{section}.")


def _keys(pairs: Sequence[str]) -> list[str]:
    """Return the keys of ``--cfg-options``; no key may silently replace an earlier one."""
    from tldet.config import parse_options

    seen: list[str] = []
    for key in (key for pair in pairs for key in parse_options([pair])):
        if other := next((one for one in seen if _within(one, key)), None):
            what = "is given twice" if other == key else f"would replace {other}; set the keys of {key} one by one"
            raise ConfigError(f"{CFG_OPTIONS} {key}: {what}")
        seen.append(key)
    return seen


def takes(request: Callable[P, Q]) -> Callable[[Callable[[Q], R]], Callable[P, R]]:
    """Turn a function of a request into a function of the fields of the request.

    Args:
        request: class of the request.
    """

    def with_arguments(function: Callable[[Q], R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(request(*args, **kwargs))

        _describe(call, cast(type[Any], request))
        return call

    return with_arguments


def signature_of(request: type[Any]) -> inspect.Signature:
    """Return the signature of a function that takes a request, in the order of the command line."""
    table, given = options(request), inspect.signature(request)
    others = [name for name in given.parameters if name not in table]
    order = [given.parameters[name] for name in (*table, *others)]
    order.sort(key=lambda one: one.kind)  # arguments by position first
    return given.replace(parameters=order)


def _python_help(request: type[Any], name: str, one: Option) -> str:
    """Return the help text of an argument; that of a flag such as ``--no-verify`` describes the value False."""
    return f"if False, {one.help}" if default_of(request, name) is True else one.help


def _describe(function: Callable[..., Any], request: type[Any]) -> None:
    """Give a function the signature of a request, and the help texts of its options as documentation."""
    signature = signature_of(request).replace(return_annotation=inspect.signature(function).return_annotation)
    summary, _, errors = inspect.cleandoc(function.__doc__ or "").partition("\nRaises:")
    texts = {one.name: one.metadata["help"] for one in fields(request) if "help" in one.metadata}
    texts |= {name: _python_help(request, name, one) for name, one in options(request).items()}
    arguments = [f"    {name}: {texts[name]}." for name in signature.parameters]
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__doc__ = "\n".join([summary, "Args:", *arguments, f"\nRaises:{errors}"])
