"""Accepted variants of the values in a COCO JSON, such as the id 7.0, converted to the types of the schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from tldet.coco.explain import explain
from tldet.coco.ids import NO_ID, ODD_ID
from tldet.coco.partial_labels import LABELED
from tldet.coco.text import half_pair, large_integer
from tldet.errors import DataError

NO_FLAG = -(2**31)  # ``iscrowd`` of an annotation that has none
INTEGERS = {  # integer fields of each record; 7.0 is read as 7
    "images": ("id", "width", "height"),
    "categories": ("id",),
    "annotations": ("image_id", "category_id"),
}
INVALID = (msgspec.ValidationError, RecursionError, OverflowError, UnicodeEncodeError)  # raised by msgspec.convert
_T = TypeVar("_T")


def convert_record(values: Any, schema: type[_T], name: str) -> _T:
    """Convert parsed values to the types of a schema.

    Raises:
        DataError: a record is invalid; the message names the record and its key.
    """
    try:
        return msgspec.convert(values, schema)
    except INVALID as error:
        raise _invalid(error, values, name) from None


def convert_document(values: Any, schema: type[_T], name: str) -> _T:
    """Convert a parsed COCO JSON that may hold NaN, ids like 7.0, or ``iscrowd`` true or null.

    Raises:
        DataError: a record is invalid; the message names the record and its key.
    """
    try:
        normalized: Any = values
        if isinstance(values, Mapping):
            normalized = {key: _normalized_list(key, value) for key, value in values.items()}
        return msgspec.convert(normalized, schema)
    except INVALID as error:
        raise _invalid(error, values, name) from None


def convert_one(section: str, row: int, record: Mapping[str, Any], schema: type[_T]) -> _T:
    """Convert the record at position ``row`` of a list of a COCO JSON; see :func:`convert_document`.

    Raises:
        DataError: the record is invalid; the message names its key.
    """
    try:
        return msgspec.convert(_normalized_list(section, [record])[0], schema)
    except INVALID as error:
        values = {section: {row: record}}  # as in the whole file
        if not isinstance(error, msgspec.ValidationError):
            raise _invalid(error, values, section) from None
        what, _, path = str(error).partition(" - at `$")
        located = f"{what} - at `$.{section}[{row}]{path or '`'}"
        raise DataError(f"{section}: {explain(located, values)}") from None


def _invalid(error: Exception, values: Any, name: str) -> DataError:
    if isinstance(error, RecursionError):
        return DataError(f"{name}: is nested too deeply")
    if isinstance(error, OverflowError):
        return large_integer(values, name)
    if isinstance(error, UnicodeEncodeError):
        return half_pair(values, name)
    return DataError(f"{name}: {explain(str(error), values)}")


def _normalized_list(section: str, records: Any) -> Any:
    if section not in INTEGERS or not isinstance(records, list):
        return records
    keys = INTEGERS[section]
    return [_normalized(section, keys, dict(one)) if isinstance(one, Mapping) else one for one in records]


def _normalized(section: str, keys: Sequence[str], record: dict[str, Any]) -> dict[str, Any]:
    for key in keys:
        if key in record:
            record[key] = _integer(record[key])
    if isinstance(record.get(LABELED), list):
        record[LABELED] = [_integer(key) for key in record[LABELED]]
    if section == "annotations":
        record["id"] = _annotation_id(record.get("id"))
        if isinstance(record.get("iscrowd", 0), float | bool | None):
            record["iscrowd"] = NO_FLAG if record["iscrowd"] is None else int(bool(record["iscrowd"]))
        if "segmentation" in record:
            record["segmentation"] = _raw(record["segmentation"])
    return record


def _annotation_id(value: Any) -> int:
    value = _integer(value)
    if value is None:
        return NO_ID
    valid = isinstance(value, int) and not isinstance(value, bool) and ODD_ID < value < 2**63
    return value if valid else ODD_ID


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _raw(value: Any) -> msgspec.Raw:
    """Encode a value as JSON text; an RLE in memory may hold its counts as bytes."""
    return msgspec.Raw(json.dumps(value, default=_plain).encode())


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.tolist()
