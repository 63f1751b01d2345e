"""Error messages about records of a COCO JSON: record, key and the value found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

LISTS = {
    "bbox": "a list of four numbers [x, y, width, height]",
    "labeled_category_ids": "a list of category ids",
}
_LONGEST = 60  # characters of a value in a message
ID_BITS = 64  # of the ids named in messages
DIGITS = 308  # of an integer that a float can hold
TOO_LARGE = f"is an integer of more than {DIGITS} digits; correct it"
RECORD = r"(?:\.(images|annotations|categories))?\[(\d+)\](?:\.(\w+))?"


def explain(error: str, values: Any) -> str:
    """Turn a decoding error of msgspec into a message that names record and key.

    Args:
        error: text of the error.
        values: the decoded values: a dict in COCO's layout, or a list of detections.
    """
    what, _, path = error.partition(" - at `$")
    location = re.match(RECORD, path)
    if location is None:
        return _explain_layout(what, path, values)
    section, row, key = location.groups()
    record = (values[section] if section else values)[int(row)]
    who = record_name(section or "detections", int(row), record)
    if missing := re.search(r"missing required field `(\w+)`", what):
        return f"{who} has no '{missing[1]}' (its keys: {', '.join(map(str, record)) or 'none'})"
    if key is None:
        return f"{who} must be an object, not {_kind(record)}"
    value = record.get(key) if isinstance(record, Mapping) else record
    if any(is_large(one) for one in (value if isinstance(value, list) else [value])):
        return f"{who}: '{key}' {TOO_LARGE}"
    expected = LISTS.get(key) or _expected(what)
    return f"{who}: '{key}' must be {expected}, not {_short(value)}"


def _explain_layout(what: str, path: str, values: Any) -> str:
    if section := re.match(r"\.(images|annotations|categories)`", path):
        return f"'{section[1]}' must be a list, not {_kind(values[section[1]])}"
    if isinstance(values, list):
        return "is a list, not in COCO's layout of images, annotations and categories (are these detections?)"
    if missing := re.search(r"missing required field `(\w+)`", what):
        return f"has no '{missing[1]}' list: not in COCO's layout (its keys: {', '.join(map(str, values)) or 'none'})"
    if isinstance(values, Mapping) and "images" in values:
        return "is an object with images, not a list of detections (is it the ground truth?)"
    listed = what.startswith("Expected `array`")
    expected = "a list of detections" if listed else "an object with images, annotations and categories"
    return f"must be {expected}, not {_kind(values)}"


def record_name(section: str, row: int, record: Any) -> str:
    """Name a record in messages: by its id, or by its position in the list."""
    known = record.get("id") if isinstance(record, Mapping) else None
    known = None if isinstance(known, int) and known.bit_length() > ID_BITS else known
    noun = {"images": "image", "annotations": "annotation", "categories": "category"}.get(section, "detection")
    return f"{noun} {row} (counted from 0)" if known is None or section == "detections" else f"{noun} id {known}"


class LargeInteger(float):
    """Infinity in place of an integer with more digits than Python converts."""


def is_large(value: Any) -> bool:
    """Return True for an integer that a float cannot hold."""
    return isinstance(value, LargeInteger) or (isinstance(value, int) and abs(value) > 10**DIGITS)


def describe_path(path: str, values: Any) -> str:
    """Describe a path such as ``annotations[3].bbox[0]`` by the id of its record and its key."""
    location = re.match(RECORD, f".{path}" if path[:1] != "[" else path)
    if location is None:
        return f"'{path}'"
    section, row, key = location.groups()
    record = (values[section] if section else values)[int(row)]
    return record_name(section or "detections", int(row), record) + (f": '{key}'" if key else "")


def _expected(what: str) -> str:
    _, expected, rest = (*what.split("`"), "", "")[:3]
    if "str" in expected:
        return "text"
    if "float" in expected:
        return "a number"
    return f"a whole number{rest.partition(',')[0]}" if "int" in expected else expected or "something else"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _short(value: Any) -> str:
    text = f"the text {value!r}" if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
