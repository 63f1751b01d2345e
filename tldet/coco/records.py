"""Records of COCO JSON files, and the text of JSON files in any Unicode encoding."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tldet.coco.ids import NO_ID
from tldet.coco.text import parse
from tldet.coco.variants import NO_FLAG, convert_record
from tldet.errors import DataError
from tldet.system.inputs import read_file

CocoSource = str | PathLike[str] | Mapping[str, Any] | list[Any]
Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # kept as int64
Pixels = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]  # kept as int32
Flag = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
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


class Document(msgspec.Struct):
    """The three lists of a COCO JSON; annotations are UNSET if missing."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] | UnsetType = UNSET


def name_of(source: CocoSource, otherwise: str) -> str:
    """Name ``source`` in messages: by its path, or as ``otherwise`` for values in memory."""
    return str(source) if isinstance(source, str | PathLike) else otherwise


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
