"""Options of a run, each declared once: a field of a request with its help text.

The fields determine the command line (:func:`tldet.cli.arguments.add_options`), the arguments of the Python function
(:func:`takes`), the record of how a run was started, and the config keys that an option sets. Nothing heavy is imported
here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import wraps
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, cast

from tldet.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
Q = TypeVar("Q")
R = TypeVar("R")
CFG_OPTIONS = "--cfg-options"
COUNT, FROM_0, ABOVE_0, SHARE = "[1, inf)", "[0, inf)", "(0, inf)", "(0, 1]"  # intervals


class _Interval(NamedTuple):
    """Numbers of a kind that an option takes, such as ``Interval(int, "[0, inf)")``; round brackets exclude the end."""

    kind: type
    text: str

    def holds(self, value: Any) -> bool:
        """Return True for a number of the kind inside the interval; NaN is in none."""
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else (int, float)):
            return False
        low, high = self._ends
        above = value >= low if self.text[0] == "[" else value > low
        return above and (value <= high if self.text[-1] == "]" else value < high)

    def __str__(self) -> str:
        low, high = self._ends
        least = f"at least {low:g}" if self.text[0] == "[" else f"above {low:g}"
        if high != float("inf"):
            return f"{least} and at most {high:g}" if low or self.text[0] == "(" else f"from {low:g} to {high:g}"
        return f"an integer of {least}" if self.kind is int else f"a number {least}"

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = (float(end) for end in self.text[1:-1].split(","))
        return low, high


@dataclass(frozen=True)
class Option:
    """Properties of an option besides its name, type hint and default, which are those of its field.

    Attributes:
        help: help text.
        kind: type of a value on the command line; ``bool`` for a flag.
        interval: numbers that are allowed, as text.
        metavar: placeholder of the value in the help text.
        choices: allowed words.
        many: takes several values.
        auto: takes the word ``auto`` too.
        const: value of the option without an argument.
        sets: config keys that the option sets; ``--cfg-options`` must not set them too.
        setting: whether the value is that of the first key in ``sets``; further keys become None.
        recorded: whether a resumed run must be given the same value.
        group: title in the help text.
        exclusive: name of a set of options of which one may be given.
        positional: has no name on the command line.
    """

    help: str
    kind: type = str
    interval: str = ""
    metavar: str | None = None
    choices: Sequence[str] = ()
    many: bool = False
    auto: bool = False
    const: object = None
    sets: Sequence[str] = ()
    setting: bool = False
    recorded: bool = True
    group: str = ""
    exclusive: str = ""
    positional: bool = False

    @property
    def numbers(self) -> _Interval | None:
        """The numbers that the option takes; None for other values."""
        return _Interval(self.kind, self.interval) if self.interval else None


REQUIRED: Any = object()  # default of an option that must be given
PYTHON_ONLY = {
    "console": "shows choices, progress and metrics; silent when None",
    "callbacks": "objects derived from mmengine's ``Hook``, called during training",
}


def option(help: str, kind: type = str, *, default: Any = None, **details: Any) -> Any:
    """Return a dataclass field with an :class:`Option`.

    Args:
        help: help text.
        kind: type of a value.
        default: value if it is not given; ``REQUIRED`` for none.
        details: see :class:`Option`.
    """
    if default is None:
        default = False if kind is bool else () if details.get("many") else None
    more: dict[str, Any] = {} if default is REQUIRED else {"default": default}
    return field(kw_only=True, metadata=described(help, kind, **details), **more)


def described(help: str, kind: type = str, **details: Any) -> dict[str, Option]:
    """Return the metadata of a field with an :class:`Option`, for arguments that may be given by position in Python."""
    return {"option": Option(help, kind, **details)}


@dataclass(frozen=True, kw_only=True)
class Request:
    """Base class of everything that a run is started by: checked when it is made, never changed.

    ``console`` and ``callbacks`` are no options of the command line; see :data:`PYTHON_ONLY`.
    """

    console: Console | None = field(default=None, compare=False, repr=False)
    callbacks: Sequence[Any] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: a number is out of range.
        """
        for name, one in options(type(self)).items():
            value, numbers = getattr(self, name), one.numbers
            if numbers and value is not None and not numbers.holds(value) and not (one.auto and value == "auto"):
                what = f"'auto' or {numbers}" if one.auto else str(numbers)
                raise ConfigError(f"{flag(name)} must be {what}, not {value!r}")

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
        table = options(type(self))
        return config_options(table, {name: getattr(self, name) for name in table})


def flag(name: str, default: object = None) -> str:
    """Return the name of an option on the command line; a flag that is on by default is turned off there."""
    return f"--{'no-' if default is True else ''}{name.replace('_', '-')}"


def options(request: type[Any]) -> dict[str, Option]:
    """Return the options of a request by name, those of its base classes first, in the order of the bases."""
    found = {one.name: one.metadata["option"] for one in fields(request) if "option" in one.metadata}
    order = [name for base in request.__bases__ if is_dataclass(base) for name in options(base)]
    return {name: found[name] for name in dict.fromkeys([*order, *found])}


def default_of(request: type[Any], name: str) -> Any:
    """Return the default of an option; ``REQUIRED`` if it has none."""
    default = next(one.default for one in fields(request) if one.name == name)
    return REQUIRED if default is MISSING else default


def config_options(table: Mapping[str, Option], values: Mapping[str, Any]) -> list[str]:
    """Return the config options ``a.b=c`` that some values stand for, then those of ``cfg_options``."""
    pairs = []
    for name, one in table.items():
        if one.setting and _is_given(values.get(name)):
            pairs.append(f"{one.sets[0]}={values[name]!r}")
            pairs += [f"{key}=None" for key in one.sets[1:]]
    return [*pairs, *values.get("cfg_options", ())]


def refuse_conflicts(table: Mapping[str, Option], values: Mapping[str, Any]) -> None:
    """Refuse ``--cfg-options`` that set a key twice, or one that another option sets.

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
    """Return True if a dotted key is that of a section or of something inside it."""
    return f"{key}.".startswith(f"{section}.")


def _keys(pairs: Sequence[str]) -> list[str]:
    """Return the keys of ``--cfg-options``, of which none may silently replace an earlier one."""
    from tldet.config import parse_options

    seen: list[str] = []
    for key in (key for pair in pairs for key in parse_options([pair])):
        if other := next((one for one in seen if _within(one, key)), None):
            what = "is given twice" if other == key else f"would replace {other}; set the keys of {key} one by one"
            raise ConfigError(f"{CFG_OPTIONS} {key}: {what}")
        seen.append(key)
    return seen


def takes(request: Callable[P, Q]) -> Callable[[Callable[[Q], R]], Callable[P, R]]:
    """Make a function of a request one that takes the fields of the request as its arguments.

    Args:
        request: the class of the request.
    """

    def with_arguments(function: Callable[[Q], R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return function(request(*args, **kwargs))

        _describe(call, cast(type[Any], request))
        return call

    return with_arguments


def _describe(function: Callable[..., Any], request: type[Any]) -> None:
    """Give a function the signature of a request, and the help texts of its options as documentation."""
    table, given = options(request), inspect.signature(request)
    others = [name for name in given.parameters if name not in table]
    order = [given.parameters[name] for name in (*table, *others)]
    order.sort(key=lambda one: one.kind)  # arguments by position first
    result = inspect.signature(function).return_annotation
    summary, _, errors = inspect.cleandoc(function.__doc__ or "").partition("\nRaises:")
    texts = {**{name: one.help for name, one in table.items()}, **PYTHON_ONLY}
    arguments = [f"    {one.name}: {texts[one.name]}." for one in order]
    function.__signature__ = given.replace(parameters=order, return_annotation=result)  # type: ignore[attr-defined]
    function.__doc__ = "\n".join([summary, "Args:", *arguments, f"\nRaises:{errors}"])
