"""Parsing of JSON text that is not valid for msgspec, with clear errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from tldet.coco.explain import DIGITS, TOO_LARGE, LargeInteger, describe_path, is_large
from tldet.errors import DataError

LONE = re.compile("[\ud800-\udfff]")


def parse(content: bytes, name: str) -> Any:
    """Parse UTF-8 JSON text with Python's parser, which accepts NaN and Infinity.

    Raises:
        DataError: the text is not JSON, cut off, not UTF-8, or holds half of a UTF-16 pair (a lone surrogate).
    """
    try:
        text = content.decode()
        values = _loads(text, name)
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            raise DataError(f"{name}: is cut off in the middle of a character; write or copy it again") from None
        line = content.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{content[error.start]:02x} in line {line}"
        raise DataError(f"{name}: is not UTF-8 ({what}; Latin-1 or another encoding?); save it as UTF-8") from None
    except json.JSONDecodeError as error:
        location, end = f"line {error.lineno}, column {error.colno}", error.doc.rstrip()
        if error.pos >= len(end) - (not end.endswith(("}", "]"))) or "Unterminated" in error.msg:
            raise DataError(f"{name}: is cut off at {location}; write or copy it again") from None
        raise DataError(f"{name}: is not valid JSON ({location}: {error.msg})") from None
    except RecursionError:
        raise DataError(f"{name}: is nested too deeply") from None
    if "\\u" in text and lone_surrogate(values) is not None:
        raise half_pair(values, name)
    return values


def _loads(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of more digits than Python converts
        values = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < DIGITS else LargeInteger("inf"))
        raise large_integer(values, name) from None


def lone_surrogate(values: Any) -> str | None:
    """Return path and escaped value of the first text with a lone surrogate; None if there is none."""
    for path, value in walk(values):
        if isinstance(value, str) and LONE.search(value):
            return f"{path or 'text'} {value!a}"
        if isinstance(value, dict) and (key := next((key for key in value if LONE.search(key)), None)) is not None:
            return f"key {key!a}"
    return None


def half_pair(values: Any, name: str) -> DataError:
    """Create the error for the first text in ``values`` with a lone surrogate."""
    location = lone_surrogate(values) or "a text"
    return DataError(f"{name}: {location} contains half of a UTF-16 pair (a lone surrogate); correct this text")


def large_integer(values: Any, name: str) -> DataError:
    """Create the error for the first integer in ``values`` that a float cannot hold."""
    path = next((path for path, one in walk(values) if is_large(one)), "")
    return DataError(f"{name}: {describe_path(path, values)} {TOO_LARGE}")


def walk(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and value of all parts of nested dicts and lists, in order, such as ``annotations[3].bbox[0]``."""
    pending: list[tuple[str, Any]] = [("", values)]
    while pending:
        path, value = pending.pop()
        yield path.lstrip("."), value
        if isinstance(value, dict):
            pending += [(f"{path}.{key}", one) for key, one in reversed(value.items())]
        elif isinstance(value, list):
            pending += [(f"{path}[{row}]", value[row]) for row in range(len(value) - 1, -1, -1)]


def top_level(content: bytes, name: str) -> dict[str, msgspec.Raw]:
    """Split the text of a JSON object into the texts of its fields, without copying.

    Args:
        content: UTF-8 without a byte-order mark, as returned by :func:`~tldet.coco.records.read_json_text`.
        name: name of the file in messages.

    Raises:
        DataError: the text is not a JSON object.
    """
    try:
        return msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        values = parse(content, name)
    if not isinstance(values, dict):
        raise DataError(f"{name}: is not an object with images, annotations and categories")
    return {key: msgspec.Raw(json.dumps(value).encode()) for key, value in values.items()}
