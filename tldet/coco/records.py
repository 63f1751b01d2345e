"""COCO JSON files: their text in any Unicode encoding, decoded block by block into typed records."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from tldet.coco.ids import NO_ID
from tldet.coco.text import parse
from tldet.coco.variants import NO_FLAG, convert_document, convert_record
from tldet.errors import DataError
from tldet.system.inputs import read_file

CocoSource = str | PathLike[str] | Mapping[str, Any] | list[Any]
Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # kept as int64
Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]  # kept as int32
Flag = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_LISTS = ("images", "annotations", "categories")
TWICE = "occurs twice"  # in the message about a repeated key
READ_BLOCK = 4096  # annotations decoded at a time, few enough for the CPU cache
_T = TypeVar("_T")
_MAGIC = {  # first bytes -> problem in a message
    b"\x1f\x8b": "is gzip-compressed; unpack it first",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"BZh": "is bzip2-compressed; unpack it first",
    b"\xfd7zXZ\x00": "is xz-compressed; unpack it first",
    b"\x28\xb5\x2f\xfd": "is zstd-compressed; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it first",
    b"Rar!": "is a rar archive; unpack it first",
    b"\x89PNG": "is a PNG image, not JSON",
    b"\xff\xd8\xff": "is a JPEG image, not JSON",
    b"%PDF": "is a PDF file, not JSON",
    b"\x80\x02": "is a pickle file, not JSON",
    b"\x80\x04": "is a pickle file, not JSON",
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'",
}
BLANK = b"\x00\xef\xbb\xbf\xff\xfe \t\r\n\f\v"  # byte-order marks too


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
        The document without its annotations, the number of annotations (None without such a list), and the blocks.

    Raises:
        DataError: the file cannot be read, or a record is invalid; the message names it.
    """
    if not isinstance(source, str | PathLike):
        whole = convert_document(source, Document[Annotation], name)
        records: Any = _taken_from(whole)
        return whole, None if records is None else len(records), iter([records or []])
    content = read_json_text(Path(source), name)
    try:
        found: AnyDocument = msgspec.json.decode(content, type=Document[msgspec.Raw])
        _require_once(content, found.annotations or [], _LISTS, name)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = convert_document(parse(content, name), Document[Annotation], name)
        _require_once(content, [], _LISTS, name)
    texts = _taken_from(found)
    return found, None if texts is None else len(texts), _blocks(name, content, texts or [])


def _taken_from(document: AnyDocument) -> list[Any] | None:
    """Move the annotations out of a document, so that their memory can be freed; None without annotations."""
    taken, document.annotations = document.annotations, UNSET
    return None if isinstance(taken, UnsetType) else taken


def _blocks(name: str, content: bytes, annotations: list[msgspec.Raw] | list[Annotation]) -> Iterator[list[Annotation]]:
    decode = msgspec.json.Decoder(Annotation).decode
    for start in range(0, max(1, len(annotations)), READ_BLOCK):
        block: Any = annotations[start : start + READ_BLOCK]
        try:
            yield block if block and isinstance(block[0], Annotation) else [decode(one) for one in block]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield (convert_document(parse(content, name), Document[Annotation], name).annotations or [])[start:]
            return


def read_json_text(path: Path, name: str | None = None) -> bytes:
    """Read a JSON file as UTF-8 without a byte-order mark.

    Args:
        path: the file, in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.
        name: name of the file in messages; None takes its path.

    Raises:
        DataError: the file is missing, empty or not JSON; the message names the problem.
    """
    name = str(path) if name is None else name
    return as_utf8(read_file(path, DataError, name), name)


def as_utf8(content: bytes, name: str) -> bytes:
    """Convert the content of a JSON file to UTF-8 without a byte-order mark.

    Raises:
        DataError: ``content`` is empty or not JSON.
    """
    if problem := not_json(content):
        raise DataError(f"{name}: {problem}")
    encoding = json.detect_encoding(content)
    if encoding == "utf-8":
        return content
    if encoding == "utf-8-sig":
        return content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode(encoding).encode()
    except UnicodeError:
        raise DataError(f"{name}: is damaged {encoding.upper()} text; save it as UTF-8") from None


def not_json(content: bytes) -> str | None:
    """Describe a file that is not JSON, judged by its first bytes; None if it may be JSON.

    Args:
        content: the whole file or its beginning.
    """
    if not content.strip(BLANK):
        return "contains only zero bytes; copy it again" if content and not content.strip(b"\x00") else "is empty"
    for magic, problem in _MAGIC.items():
        if content.startswith(magic):
            return problem
    start = content[:512].removeprefix(codecs.BOM_UTF8).replace(b"\x00", b"").lstrip(b"\xff\xfe \t\r\n")[:64].lower()
    if start.startswith(b"<"):
        html = start.startswith((b"<!doctype html", b"<html"))
        return "is an HTML page (a failed download?), not JSON" if html else "is XML, not JSON"
    return None


def read_list(source: CocoSource, schema: type[_T], name: str) -> _T:
    """Decode ``source`` as ``schema``, such as a list of detections.

    Raises:
        DataError: the file cannot be read, or a record is invalid; the message names it.
    """
    if not isinstance(source, str | PathLike):
        return convert_record(source, schema, name)
    content = read_json_text(Path(source), name)
    try:
        return msgspec.json.decode(content, type=schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN too, which Python's parser accepts
        return convert_record(parse(content, name), schema, name)


def _require_once(content: bytes, values: Sequence[Any], keys: Sequence[str], name: str) -> None:
    """Check that no key occurs twice in a JSON object; parsers keep the last value without a message.

    Args:
        content: UTF-8 without a byte-order mark, as returned by :func:`~tldet.coco.records.read_json_text`.
        values: consecutive ``msgspec.Raw`` parts of ``content`` that need no search.
        keys: the keys to look for.
        name: name of the file in messages.

    Raises:
        DataError: a key occurs twice.
    """
    start, end = (_address(values[0]), _address(values[-1]) + len(bytes(values[-1]))) if values else (0, 0)
    start, end = (max(0, address - _address(content)) for address in (start, end))
    for key in (f'"{key}"'.encode() for key in keys):
        if content.count(key, 0, start) + content.count(key, end) < 2:
            continue
        if _on_top(content, key) > 1:
            raise DataError(
                f"{name}: {key.decode()} {TWICE}; keep one of them, or split the file in two and use `tldet merge`"
            )


def _on_top(content: bytes, key: bytes) -> int:
    """Return how often a quoted key occurs in the outermost object, not counting objects inside it."""
    try:
        fields = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN, which Python's parser accepts
        keys: list[str] = []

        def remember(pairs: list[tuple[str, Any]]) -> None:  # the outermost object is the last one
            keys[:] = [name for name, _ in pairs]

        json.loads(content, object_pairs_hook=remember)
        return keys.count(key.decode().strip('"'))
    return content.count(key) - sum(bytes(value).count(key) for value in fields.values())


def _address(content: bytes | msgspec.Raw) -> int:
    return int(np.frombuffer(content, np.uint8).ctypes.data)
