"""Typed records of a COCO JSON, read block by block; errors name the record and its key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tldet.coco.explain import explain
from tldet.coco.partial_labels import LABELLED
from tldet.coco.text import half_pair, large_integer, parse, read_json_text, require_once
from tldet.errors import DataError

CocoSource = str | PathLike[str] | Mapping[str, Any] | list[Any]
Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # kept as int64
Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]  # kept as int32
NO_ID, ODD_ID = -(2**63), -(2**63) + 1  # an annotation without an id; one whose id is not a 64-bit integer
Flag = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
NO_FLAG = -(2**31)  # an annotation without ``iscrowd``
WHOLE = {  # integer fields of each record; 7.0 is read as 7
    "images": ("id", "width", "height"),
    "categories": ("id",),
    "annotations": ("image_id", "category_id"),
}
INVALID = (msgspec.ValidationError, RecursionError, OverflowError, UnicodeEncodeError)  # raised by msgspec.convert
LISTED = ("images", "annotations", "categories")
READ_BLOCK = 4096  # annotations decoded at a time, few enough for the CPU cache
_T = TypeVar("_T")


class Image(msgspec.Struct, gc=False):
    """An entry of ``images``."""

    id: Id
    file_name: str | None = None
    width: Pixels | None = None
    height: Pixels | None = None
    labeled_category_ids: list[Id] | None = None  # categories annotated exhaustively on the image; None for all


class Category(msgspec.Struct, gc=False):
    """An entry of ``categories``."""

    id: Id
    name: str | None = None
    supercategory: Any = None


class Annotation(msgspec.Struct, gc=False):
    """An entry of ``annotations``; the segmentation stays JSON text until a mask is needed."""

    image_id: Id
    category_id: Id
    bbox: list[float] | None = None
    id: Id = NO_ID
    area: float | None = None
    iscrowd: Flag = NO_FLAG
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


_A = TypeVar("_A", msgspec.Raw, Annotation)


class Document(msgspec.Struct, Generic[_A]):
    """The three lists of a COCO JSON; annotations as text or as records, UNSET if missing."""

    images: list[Image]
    categories: list[Category]
    annotations: list[_A] | UnsetType = UNSET


AnyDocument = Document[msgspec.Raw] | Document[Annotation]


def name_of(source: CocoSource, otherwise: str) -> str:
    """Name ``source`` in messages: by its path, or as ``otherwise`` for values in memory."""
    return str(source) if isinstance(source, str | PathLike) else otherwise


def read_document(source: CocoSource, name: str) -> tuple[AnyDocument, int | None, Iterator[list[Annotation]]]:
    """Read the lists of a COCO JSON, and its annotations in one or more blocks.

    The text of the file is freed with the last block.

    Args:
        source: the file, or Python values of the same layout.
        name: name of the source in messages.

    Returns:
        the document without its annotations, their number (None if it has no such list), and the blocks.

    Raises:
        DataError: the file cannot be read, or a record is invalid; the message names it.
    """
    if not isinstance(source, str | PathLike):
        whole = _from_values(source, name)
        records: Any = _taken_from(whole)
        return whole, None if records is None else len(records), iter([records or []])
    content = read_json_text(Path(source), name)
    try:
        found: AnyDocument = msgspec.json.decode(content, type=Document[msgspec.Raw])
        require_once(content, found.annotations or [], LISTED, name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _from_values(parse(content, name), name)
        require_once(content, [], LISTED, name)
    texts = _taken_from(found)
    return found, None if texts is None else len(texts), _blocks(name, content, texts or [])


def _taken_from(document: AnyDocument) -> list[Any] | None:
    """Take the annotations out of a document, to free their memory; None if it has no such list."""
    taken, document.annotations = document.annotations, UNSET
    return None if isinstance(taken, UnsetType) else taken


def _blocks(name: str, content: bytes, annotations: list[msgspec.Raw] | list[Annotation]) -> Iterator[list[Annotation]]:
    decode = msgspec.json.Decoder(Annotation).decode
    for start in range(0, max(1, len(annotations)), READ_BLOCK):
        block: Any = annotations[start : start + READ_BLOCK]
        try:
            yield block if block and isinstance(block[0], Annotation) else [decode(one) for one in block]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield (_from_values(parse(content, name), name).annotations or [])[start:]
            return


def read_list(source: CocoSource, schema: type[_T], name: str) -> _T:
    """Decode ``source`` as ``schema``, such as a list of detections.

    Raises:
        DataError: the file cannot be read, or a record is invalid; the message names it.
    """
    if not isinstance(source, str | PathLike):
        return _convert(source, schema, name)
    content = read_json_text(Path(source), name)
    try:
        return msgspec.json.decode(content, type=schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN too: Python's parser decides
        return _convert(parse(content, name), schema, name)


def _convert(values: Any, schema: type[_T], name: str) -> _T:
    try:
        return msgspec.convert(values, schema)
    except INVALID as error:
        raise _invalid(error, values, name) from None


def _from_values(values: Any, name: str) -> Document[Annotation]:
    """Convert parsed values, also those that msgspec rejects: NaN, ids like 7.0, ``iscrowd`` true or null."""
    try:
        loosened: Any = values
        if isinstance(values, Mapping):
            loosened = {key: _loosened(key, value) for key, value in values.items()}
        return msgspec.convert(loosened, Document[Annotation])
    except INVALID as error:
        raise _invalid(error, values, name) from None


def _invalid(error: Exception, values: Any, name: str) -> DataError:
    if isinstance(error, RecursionError):
        return DataError(f"{name}: is nested too deeply")
    if isinstance(error, OverflowError):
        return large_integer(values, name)
    if isinstance(error, UnicodeEncodeError):
        return half_pair(values, name)
    return DataError(f"{name}: {explain(str(error), values)}")


def _loosened(section: str, records: Any) -> Any:
    if section not in WHOLE or not isinstance(records, list):
        return records
    keys = WHOLE[section]
    return [_loosen(section, keys, dict(one)) if isinstance(one, Mapping) else one for one in records]


def _loosen(section: str, keys: Sequence[str], record: dict[str, Any]) -> dict[str, Any]:
    """Convert the accepted variants of a record's values (such as the id 7.0) to the types of the schema."""
    for key in keys:
        if key in record:
            record[key] = _whole(record[key])
    if isinstance(record.get(LABELLED), list):
        record[LABELLED] = [_whole(one) for one in record[LABELLED]]
    if section == "annotations":
        record["id"] = _annotation_id(record.get("id"))
        if isinstance(record.get("iscrowd", 0), float | bool | None):
            record["iscrowd"] = NO_FLAG if record["iscrowd"] is None else int(bool(record["iscrowd"]))
        if "segmentation" in record:
            record["segmentation"] = _raw(record["segmentation"])
    return record


def _annotation_id(value: Any) -> int:
    value = _whole(value)
    if value is None:
        return NO_ID
    whole = isinstance(value, int) and not isinstance(value, bool) and ODD_ID < value < 2**63
    return value if whole else ODD_ID


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _raw(value: Any) -> msgspec.Raw:
    """Encode a value as JSON text; an RLE in memory may hold its counts as bytes."""
    return msgspec.Raw(json.dumps(value, default=_plain).encode())


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value.tolist()
