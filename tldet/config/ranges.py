"""Checks that numbers of a config lie in an interval."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tldet.errors import ConfigError


def require_ranges(settings: Any, prefix: str = "", /, **intervals: str) -> None:
    """Check several attributes of ``settings`` with :func:`require_range`; ``prefix`` precedes their names."""
    for name, interval in intervals.items():
        require_range(prefix + name, getattr(settings, name), interval)


def require_range(name: str, value: Any, interval: str) -> None:
    """Check that a number, or all numbers in nested lists, lie in an interval such as ``[0, 1)``.

    Args:
        name: name in messages.
        value: a number, numbers in lists, or None, which is accepted.
        interval: parentheses exclude the end, which may be ``inf``; NaN lies in no interval.

    Raises:
        ConfigError: a number is outside the interval, or a list is empty.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for number in _numbers(value):
        reaches = number >= low if interval[0] == "[" else number > low
        if not (reaches and (number <= high if interval[-1] == "]" else number < high)):
            raise ConfigError(f"{name} must be {_words(interval, low, high)}, not {value!r}")
    if isinstance(value, (list, tuple)) and not value:
        raise ConfigError(f"{name} must contain at least one number")


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _numbers(one)
    elif value is not None:
        yield value


def _words(interval: str, low: float, high: float) -> str:
    least = f"at least {low:g}" if interval[0] == "[" else f"above {low:g}"
    if high == float("inf"):
        return least if interval[-1] == "]" else f"{least} and finite"
    return f"{least} and {'at most' if interval[-1] == ']' else 'below'} {high:g}"
