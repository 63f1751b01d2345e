"""A COCO JSON as typed records, its faults named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tldet.errors import DataError
from tldet.labelled import LABELLED
from tldet.records import explain

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # kept as int64
Pixels = Annotated[int, msgspec.Meta(le=2**31 - 1)]  # kept as int32
WHOLE = {  # the whole numbers of each record; they may be written 7.0
    "images": ("id", "width", "height"),
    "categories": ("id",),
    "annotations": ("id", "image_id", "category_id"),
}


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


class Coco(msgspec.Struct):
    """What of a COCO JSON is read."""

    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation] = msgspec.field(default_factory=list)


def read_coco(path: Path) -> Coco:
    """A COCO JSON whose every reference leads somewhere.

    Raises:
        DataError: what is wrong, with the file and the annotation's, picture's or category's id.
    """
    coco = _read(path)
    if not coco.images or not coco.categories:
        raise DataError(f"{path}: has no {'images' if not coco.images else 'categories'}")
    categories, images = {c.id for c in coco.categories}, {i.id for i in coco.images}
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
    for a in coco.annotations:
        if a.category_id not in categories:
            raise DataError(f"{path}: annotation {a.id} has unknown category id {a.category_id}")
        if a.image_id not in images:
            raise DataError(f"{path}: annotation {a.id} belongs to unknown image id {a.image_id}")
        if len(a.bbox) != 4:
            raise DataError(f"{path}: annotation {a.id} has a bbox of {len(a.bbox)} numbers, not 4")
    return coco


def _read(path: Path) -> Coco:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content.strip():
        raise DataError(f"{path}: is empty; a COCO JSON holds images, annotations and categories")
    try:
        return msgspec.json.decode(content, type=Coco)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_leniently(path, content)


def _read_leniently(path: Path, content: bytes) -> Coco:
    """What msgspec refuses: Python's own parser accepts NaN, and says where a file breaks off; whole floats are ids."""
    try:
        data = json.loads(content)
        for section, keys in WHOLE.items():
            _loosen(data, section, keys)
        return msgspec.convert(data, Coco)
    except json.JSONDecodeError as error:
        cut = " (the file is cut off)" if error.pos >= len(content.rstrip()) - 1 or "Untermin" in error.msg else ""
        raise DataError(f"{path}: is no valid JSON at line {error.lineno}, column {error.colno}{cut}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no JSON text") from None
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {explain(str(error), data)}") from None


def _loosen(data: Any, section: str, keys: Sequence[str]) -> None:
    """Records as they may also be written (7.0 for 7, false or null for no crowd), made those of :class:`Coco`."""
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
