"""From JSON (a file, or the same as Python values) to typed records, with errors a user can act on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tldet.errors import DataError

Source = str | PathLike[str] | Mapping[str, Any] | list[Any]
Number = int | float  # ids written as 7.0 are the id 7
T = TypeVar("T")
LISTS = {
    "bbox": "a list of four numbers [x, y, width, height]",
    "labelled_category_ids": "a list of category ids",
}


class Image(msgspec.Struct, gc=False):
    """One picture of the ground truth."""

    id: Number
    width: float | None = None
    height: float | None = None
    labelled_category_ids: list[Number] | None = None


class Category(msgspec.Struct, gc=False):
    """One class of the ground truth."""

    id: Number
    name: str = ""


class Annotation(msgspec.Struct):
    """One annotated object; ``segmentation`` is not parsed, because boxes are scored without it."""

    id: Number
    image_id: Number
    category_id: Number
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: float | bool | None = None


class MaskAnnotation(Annotation):
    """One annotated object with its mask."""

    segmentation: Any = None


class Detection(msgspec.Struct):
    """One record of a COCO results file."""

    image_id: Number
    category_id: Number
    score: float
    bbox: list[float] | UnsetType = UNSET


class MaskDetection(Detection):
    """One record of a COCO results file, with its mask."""

    segmentation: Any = None


class Dataset(msgspec.Struct):
    """A COCO annotation file, as far as boxes need it."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


class MaskDataset(msgspec.Struct):
    """A COCO annotation file with masks."""

    images: list[Image]
    annotations: list[MaskAnnotation]
    categories: list[Category]


def name_of(source: Source, otherwise: str) -> str:
    """What messages call ``source``: its path, or ``otherwise`` for values in memory."""
    return str(source) if isinstance(source, str | PathLike) else otherwise


def read(source: Source, schema: type[T], name: str) -> T:
    """Decode ``source`` as ``schema``.

    Raises:
        DataError: no file, empty, cut off, not JSON, or a record that does not fit; ``name`` and the record are named.
    """
    if not isinstance(source, str | PathLike):
        return _convert(source, schema, name)
    content = _bytes_of(Path(source), name)
    try:
        return msgspec.json.decode(content, type=schema)
    except msgspec.ValidationError:
        pass
    except msgspec.DecodeError as error:  # NaN and a byte-order mark are no JSON for msgspec: Python decides
        return _convert(_parse(content, name, truncated="truncated" in str(error)), schema, name)
    return _convert(_parse(content, name), schema, name)


def _bytes_of(path: Path, name: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from None
    if not content.strip():
        raise DataError(f"{name}: is empty")
    return content


def _parse(content: bytes, name: str, truncated: bool = False) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        if truncated or error.pos >= len(error.doc.rstrip()):
            raise DataError(f"{name}: is cut off after {len(content)} bytes; write or copy it again") from None
        raise DataError(f"{name}: is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: is not JSON ({error})") from None


def _convert(values: Any, schema: type[T], name: str) -> T:
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise DataError(f"{name}: {_explain(str(error), values)}") from None


def _explain(error: str, values: Any) -> str:
    """A decoding error in the words of the file: which record, which key, what stands there."""
    what, _, path = error.partition(" - at `$")
    place = re.match(r"(?:\.(images|annotations|categories))?\[(\d+)\](?:\.(\w+))?", path)
    if place is None:
        return _explain_layout(what, values)
    section, row, key = place.groups()
    record = (values[section] if section else values)[int(row)]
    who = record_name(section or "detections", int(row), record)
    if missing := re.search(r"missing required field `(\w+)`", what):
        return f"{who} has no '{missing[1]}' (its keys: {', '.join(map(str, record)) or 'none'})"
    if key is None:
        return f"{who} must be an object, not {_kind(record)}"
    value = record.get(key) if isinstance(record, Mapping) else record
    wanted = LISTS.get(key) or _wanted(what)
    return f"{who}: '{key}' must be {wanted}, not {_short(value)}"


def _explain_layout(what: str, values: Any) -> str:
    if isinstance(values, list):
        return "is a list, not COCO annotations with images, annotations and categories (are these detections?)"
    if missing := re.search(r"missing required field `(\w+)`", what):
        return f"has no '{missing[1]}' list: not COCO annotations (its keys: {', '.join(map(str, values)) or 'none'})"
    if isinstance(values, Mapping) and "images" in values:
        return "is an object with images, not a list of detections (is it the ground truth?)"
    return f"must be a list of detections, not {_kind(values)}"


def record_name(section: str, row: int, record: Any) -> str:
    """How a message points at one record: by its id, or by its place in the list."""
    known = record.get("id") if isinstance(record, Mapping) else None
    noun = {"images": "image", "annotations": "annotation", "categories": "category"}.get(section, "detection")
    return f"{noun} {row} (counted from 0)" if known is None or section == "detections" else f"{noun} id {known}"


def _wanted(what: str) -> str:
    expected = what.partition("`")[2].partition("`")[0]
    if "str" in expected:
        return "text"
    return "a number" if re.search("int|float", expected) else expected or "something else"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _short(value: Any) -> str:
    text = f"the text {value!r}" if isinstance(value, str) else json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."
