"""Reading of COCO JSON: annotations in blocks, then images and categories.

Annotations are decoded while the file is read, so that their text is not held in memory as a whole. A block ends
between two records, at ``}, {``. If such a boundary is inside a record, the text before it cannot be decoded, and an
earlier one is tried. A file that cannot be decoded in this way (with NaN, in UTF-16, ...) is
read as a whole by Python's parser.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from tldet.coco.records import Annotation, Category, CocoSource, Document, Image, read_json_text
from tldet.coco.text import parse
from tldet.coco.variants import convert_document
from tldet.errors import DataError
from tldet.system.inputs import require_file

TWICE = "occurs twice"  # part of the message about a repeated key
BLOCK_BYTES = 1 << 20  # bytes read at a time
_LISTS = ("images", "annotations", "categories")
_START = re.compile(rb'"annotations"\s*:\s*\[')
_MAX_START = 1024  # maximum length of a match of _START, which two reads may split
_ESCAPED_KEY = re.compile(rb'\\u00[0-9A-Za-z\\]{2,66}"\s*:')
_BETWEEN = re.compile(rb"\},\s*(?=\{)")
_TRIES = 8  # boundaries tried as the end of a block
_MAX_ENDS = 64  # ends of objects examined as boundaries; the last record may contain some, such as RLEs
_T = TypeVar("_T")
_FAILED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Part(msgspec.Struct):
    """Lists in a part of a document."""

    images: list[Image] | UnsetType = UNSET
    annotations: list[Annotation] | UnsetType = UNSET
    categories: list[Category] | UnsetType = UNSET


class _ReadAsWhole(Exception):
    """The file cannot be decoded in blocks."""


class DocumentReader:
    """Iterable over blocks of the annotations of a COCO JSON, in file order.

    Args:
        source: the file, or Python values of the same layout.
        name: name of the source in messages.

    Attributes:
        images: the images; empty until all blocks are read.
        categories: the categories; empty until all blocks are read.
        listed: False if the document has no list of annotations; valid once all blocks are read.

    Raises:
        DataError: in iteration, if the file cannot be read or a record is invalid; the message names it.
    """

    def __init__(self, source: CocoSource, name: str) -> None:
        self.source, self.name = source, name
        self.images: list[Image] = []
        self.categories: list[Category] = []
        self.listed = True

    def __iter__(self) -> Iterator[list[Annotation]]:
        if not isinstance(self.source, str | PathLike):
            yield self._keep(convert_document(self.source, Document, self.name))
            return
        path, count = Path(self.source), 0
        version = self._version(path)
        try:
            for block in self._blocks(path):
                count += len(block)
                yield block
        except _ReadAsWhole:
            yield self._whole(path)[count:]
        if self._version(path) != version:
            raise DataError(f"{self.name}: changed while it was read; try again when the file is complete")

    def _version(self, path: Path) -> tuple[int, int, int]:
        status = require_file(path, DataError, self.name)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _blocks(self, path: Path) -> Iterator[list[Annotation]]:
        """Decode the annotations while the file is read.

        Raises:
            _ReadAsWhole: the file cannot be decoded in blocks.
        """
        try:
            with path.open("rb") as file:
                start, rest = _read_to_annotations(file)
                before, end = _decode(start, _Part), b"{}"
                if before.annotations != (UNSET if rest is None else []):  # the match is part of another key
                    raise _ReadAsWhole
                if rest is not None:
                    rest = yield from _decode_blocks(file, rest)
                    end = b'{"annotations":[' + rest + file.read()
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error.strerror}") from None
        after = _decode(end, _Part)
        if any(_count(start, key) + _count(end, key) > 1 + (key == "annotations") for key in _LISTS):
            raise _ReadAsWhole
        if _ESCAPED_KEY.search(start) or _ESCAPED_KEY.search(end):  # may be a list that occurs twice
            raise _ReadAsWhole
        images, categories = after.images or before.images, after.categories or before.categories
        if isinstance(images, UnsetType) or isinstance(categories, UnsetType):
            raise _ReadAsWhole
        yield self._keep(Document(images, categories, after.annotations))

    def _keep(self, document: Document) -> list[Annotation]:
        self.images, self.categories = document.images, document.categories
        self.listed = not isinstance(document.annotations, UnsetType)
        return [] if isinstance(document.annotations, UnsetType) else document.annotations

    def _whole(self, path: Path) -> list[Annotation]:
        content = read_json_text(path, self.name)
        document = convert_document(parse(content, self.name), Document, self.name)
        keys = _top_keys(content)
        if twice := next((key for key in _LISTS if keys.count(key) > 1), None):
            advice = "keep one of them, or split the file in two and use `tldet merge`"
            raise DataError(f'{self.name}: "{twice}" {TWICE}; {advice}')
        return self._keep(document)


def _read_to_annotations(file: BinaryIO) -> tuple[bytes, bytes | None]:
    """Read up to the list of annotations.

    Returns:
        A JSON object of the values before the annotations, with an empty list of annotations; and the text read after
        the bracket that opens the list. Without such a list, the whole document and None.
    """
    text = bytearray(file.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8))
    if not text.lstrip().startswith(b"{") or json.detect_encoding(text) != "utf-8":
        raise _ReadAsWhole
    searched = 0
    while (found := _START.search(text, searched)) is None:
        searched = max(0, len(text) - _MAX_START)
        more = file.read(BLOCK_BYTES)
        if not more:
            return bytes(text), None
        text += more
    return bytes(text[: found.end()]) + b"]}", bytes(text[found.end() :])


def _decode_blocks(file: BinaryIO, text: bytes) -> Generator[list[Annotation], None, bytes]:
    """Yield the annotations of complete blocks; return the text that follows them.

    Args:
        file: the file.
        text: the text before the position of ``file``, from the beginning of a record.
    """
    decode = msgspec.json.Decoder(list[Annotation]).decode
    while more := file.read(max(BLOCK_BYTES, len(text))):
        searched = len(text)
        text += more
        boundaries = list(islice(_boundaries(text, max(0, searched - 1)), _TRIES))
        for boundary in boundaries:
            try:
                block = decode(b"".join((b"[", memoryview(text)[: boundary.start() + 1], b"]")))
            except _FAILED:
                continue
            yield block
            text = text[boundary.end() :]
            break
        else:
            if boundaries:
                return text
    return text


def _boundaries(text: bytes, start: int) -> Iterator[re.Match[bytes]]:
    """Yield the boundaries between two objects at or after ``start``, the last one first."""
    end = len(text)
    for _ in range(_MAX_ENDS):
        end = text.rfind(b"},", start, end)
        if end < 0:
            return
        if found := _BETWEEN.match(text, end):
            yield found


def _decode(text: bytes, schema: type[_T]) -> _T:
    try:
        return msgspec.json.decode(text, type=schema)
    except _FAILED:
        raise _ReadAsWhole from None


def _count(text: bytes, key: str) -> int:
    """Count the occurrences of a key in the outermost object of a JSON text."""
    quoted = f'"{key}"'.encode()
    count = text.count(quoted)
    if count > 1:
        fields = _decode(text, dict[str, msgspec.Raw])
        count -= sum(bytes(value).count(quoted) for value in fields.values())
    return count


def _top_keys(content: bytes) -> list[str]:
    """Return the keys of the outermost object, including repeated ones."""
    keys: list[str] = []

    def record(pairs: list[tuple[str, Any]]) -> None:  # the outermost object is the last one
        keys[:] = [name for name, _ in pairs]

    json.loads(content, object_pairs_hook=record)
    return keys


def drop_unused(categories: Sequence[Category], used: NDArray[np.int64]) -> tuple[list[Category], Category | None]:
    """Drop Roboflow's entry for the supercategory: unused, and the supercategory of all other categories.

    Returns:
        The remaining categories, and the dropped one or None.
    """
    parents = Counter(c.supercategory for c in categories if isinstance(c.supercategory, str))
    for one in categories:
        root = one.supercategory in ("none", "", None) and one.name is not None
        children = parents[one.name or ""] - (one.supercategory == one.name) if root else 0
        if root and 0 < children == len(categories) - 1 and not (used == one.id).any():
            return [other for other in categories if other is not one], one
    return list(categories), None
