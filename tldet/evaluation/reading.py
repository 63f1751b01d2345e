"""From JSON (a file, or the same as Python values) to typed records, with errors a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from tldet.coco.explain import explain
from tldet.coco.text import parse, read_json_text
from tldet.errors import DataError

Source = str | PathLike[str] | Mapping[str, Any] | list[Any]
Number = int | float  # ids written as 7.0 are the id 7
T = TypeVar("T")


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
    content = read_json_text(Path(source), name)
    try:
        return msgspec.json.decode(content, type=schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN too: Python's parser decides
        return _convert(parse(content, name), schema, name)


def _convert(values: Any, schema: type[T], name: str) -> T:
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise DataError(f"{name}: {explain(str(error), values)}") from None
