"""A COCO JSON as typed records and columns, its faults named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tldet.coco.explain import explain
from tldet.coco.text import parse, read_json_text
from tldet.errors import DataError
from tldet.labelled import LABELLED

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # kept as int64
Pixels = Annotated[int, msgspec.Meta(le=2**31 - 1)]  # kept as int32
WHOLE = {  # the whole numbers of each record; they may be written 7.0
    "images": ("id", "width", "height"),
    "categories": ("id",),
    "annotations": ("id", "image_id", "category_id"),
}
BLOCK = 4096  # annotations that are records at the same time: they stay in the processor's cache


class Image(msgspec.Struct, gc=False):
    """An entry of ``images``."""

    id: Id
    file_name: str
    width: Pixels
    height: Pixels
    labelled_category_ids: list[Id] | None = None  # those annotated on it without a gap; None for all


class Category(msgspec.Struct, gc=False):
    """An entry of ``categories``."""

    id: Id
    name: str


class Annotation(msgspec.Struct, gc=False):
    """An entry of ``annotations``; the segmentation stays text until a mask is asked for."""

    image_id: Id
    category_id: Id
    bbox: list[float]
    id: Id = -1
    area: float | None = None
    iscrowd: int = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


A = TypeVar("A", msgspec.Raw, Annotation)


class _Document(msgspec.Struct, Generic[A]):
    """What of a COCO JSON is read; annotations as text or as records."""

    images: list[Image]
    categories: list[Category]
    annotations: list[A] = msgspec.field(default_factory=list)


_Read = _Document[msgspec.Raw] | _Document[Annotation]


@dataclass(frozen=True)
class Objects:
    """The annotations of a file in its order, column by column.

    Attributes:
        ids: (A,) int64.
        places: (A,) int64, which of the pictures.
        category_ids: (A,) int64.
        boxes: (A, 4) float64 x, y, width, height in pixels.
        crowd: (A,) bool.
        areas: (A,) float64, the stated ones or the boxes'.
        lengths: (A,) int64, of the segmentations' JSON texts.
        text: these texts, one behind the other.
    """

    ids: NDArray[np.int64]
    places: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    lengths: NDArray[np.int64]
    text: bytearray


@dataclass(frozen=True)
class Coco:
    """What of a COCO JSON is read."""

    images: list[Image]
    categories: list[Category]
    objects: Objects


def read_coco(path: Path) -> Coco:
    """A COCO JSON whose every reference leads somewhere.

    Raises:
        DataError: what is wrong, with the file and the annotation's, picture's or category's id.
    """
    content = read_json_text(path)
    try:
        found: _Read = msgspec.json.decode(content, type=_Document[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _read_leniently(path, content)
    _check(path, found)
    return Coco(found.images, found.categories, _objects(path, _blocks(path, content, found.annotations), found))


def _check(path: Path, coco: _Read) -> None:
    """Refuse pictures and categories that cannot be."""
    if not coco.images or not coco.categories:
        raise DataError(f"{path}: has no {'images' if not coco.images else 'categories'}")
    _refuse_twins(path, "category id", [c.id for c in coco.categories])
    _refuse_twins(path, "category name", [c.name for c in coco.categories])
    _refuse_twins(path, "image id", [i.id for i in coco.images])
    for category in coco.categories:
        if category.id < 0:
            raise DataError(
                f"{path}: category id {category.id} ({category.name}) is negative, and would never be scored: "
                "number the categories from 0 up"
            )
    for image in coco.images:
        if image.width <= 0 or image.height <= 0:
            raise DataError(f"{path}: image {image.id} ({image.file_name}) has size {image.width} x {image.height}")


def _blocks(
    path: Path, content: bytes, annotations: list[msgspec.Raw] | list[Annotation]
) -> Iterator[list[Annotation]]:
    """The annotations as records, some at a time; at least one block."""
    decode = msgspec.json.Decoder(Annotation).decode
    for start in range(0, max(1, len(annotations)), BLOCK):
        block: Any = annotations[start : start + BLOCK]
        try:
            yield [one if isinstance(one, Annotation) else decode(one) for one in block]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield _read_leniently(path, content).annotations[start:]
            return


def _objects(path: Path, blocks: Iterator[list[Annotation]], coco: _Read) -> Objects:
    parts, text = [], bytearray()
    for block in blocks:
        odd = next((a for a in block if len(a.bbox) != 4), None)
        if odd is not None:
            raise DataError(f"{path}: annotation {odd.id} has a bbox of {len(odd.bbox)} numbers, not 4")
        columns: list[NDArray[Any]] = [
            np.array([a.id for a in block], np.int64),
            np.array([a.image_id for a in block], np.int64),
            np.array([a.category_id for a in block], np.int64),
            np.array([a.bbox for a in block], np.float64).reshape(-1, 4),
            np.array([a.iscrowd != 0 for a in block], np.bool_),
            np.array([a.bbox[2] * a.bbox[3] if a.area is None else a.area for a in block], np.float64),
            np.array([len(a.segmentation) for a in block], np.int64),
        ]
        parts.append(columns)
        text += b"".join([a.segmentation for a in block])
    ids, image_ids, category_ids, boxes, crowd, areas, lengths = map(np.concatenate, zip(*parts, strict=True))
    places, strange = _places(image_ids, [image.id for image in coco.images])
    unknown = _places(category_ids, [category.id for category in coco.categories])[1]
    if (strange | unknown).any():
        row = int((strange | unknown).argmax())
        what = f"has unknown category id {category_ids[row]}" if unknown[row] else ""
        raise DataError(f"{path}: annotation {ids[row]} {what or f'belongs to unknown image id {image_ids[row]}'}")
    return Objects(ids, places, category_ids, boxes, crowd, areas, lengths, text)


def _places(wanted: NDArray[np.int64], known: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each of the wanted stands among the known, and which stand nowhere."""
    table = np.array(known, np.int64)
    order = np.argsort(table)
    places = order[np.searchsorted(table, wanted, sorter=order).clip(max=len(table) - 1)]
    return places, table[places] != wanted


def _read_leniently(path: Path, content: bytes) -> _Document[Annotation]:
    """Read what msgspec refuses: NaN and whole floats as ids; name what is wrong."""
    data = parse(content, str(path))
    try:
        for section, keys in WHOLE.items():
            _loosen(data, section, keys)
        return msgspec.convert(data, _Document[Annotation])
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {explain(str(error), data)}") from None


def _loosen(data: Any, section: str, keys: Sequence[str]) -> None:
    """Records as they may also be written (7.0 for 7, false or null for no crowd), made those that are read."""
    found = data.get(section) if isinstance(data, dict) else None
    for record in found if isinstance(found, list) else ():
        if not isinstance(record, dict):
            continue
        for key in keys:
            if key in record:
                record[key] = _whole(record[key])
        if isinstance(record.get(LABELLED), list):
            record[LABELLED] = [_whole(one) for one in record[LABELLED]]
        if isinstance(record.get("iscrowd", 0), float | bool | None):
            record["iscrowd"] = int(bool(record["iscrowd"]))
        if "segmentation" in record:
            record["segmentation"] = msgspec.Raw(json.dumps(record["segmentation"]).encode())


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _refuse_twins(path: Path, what: str, values: Sequence[Any]) -> None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise DataError(f"{path}: {what} {value!r} occurs more than once")
        seen.add(value)
