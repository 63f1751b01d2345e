"""Records of a COCO JSON with all their fields, for commands that write a changed copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tldet.coco.reader import read_coco
from tldet.coco.records import Image, read_json_text
from tldet.coco.text import parse, top_level
from tldet.errors import DataError

Record = dict[str, Any]


def read_repaired(path: Path) -> Record:
    """Read a COCO JSON with all its fields and the repairs of :func:`read_coco`.

    Raises:
        DataError: see :func:`read_coco`.
    """
    coco = read_coco(path)
    whole: Record = parse(read_json_text(path), str(path))
    found, records = coco.objects, whole.get("annotations") or []
    columns = (found.rows, found.ids, found.positions, found.category_ids, found.boxes, found.derived)
    annotations = []
    for row, key, position, category, box, derived in zip(*(column.tolist() for column in columns), strict=True):
        ids = {"id": key, "image_id": coco.images[position].id, "category_id": category}
        annotations.append({**records[row], **ids, **({"bbox": box} if derived else {})})
    kept = {category.id for category in coco.categories}
    return {
        **whole,
        "images": [{**record, "id": image.id} for record, image in zip(whole["images"], coco.images, strict=True)],
        "annotations": annotations,
        "categories": [{**one, "id": int(one["id"])} for one in whole["categories"] if one["id"] in kept],
    }


def read_part(path: Path, keep: Callable[[Image], bool]) -> Record:
    """Read a COCO JSON with some of its images and their annotations, all fields unchanged.

    Annotations that :func:`read_coco` drops are left out.

    Raises:
        DataError: see :func:`read_coco`.
    """
    images, annotations = _rows_of(path, str(path), keep)
    whole: Record = parse(read_json_text(path), str(path))
    records = whole.get("annotations") or []
    return {
        **whole,
        "images": [whole["images"][row] for row in images],
        "annotations": [records[row] for row in annotations],
    }


def read_part_texts(path: Path, name: str, keep: Callable[[Image], bool]) -> tuple[dict[str, Any], int]:
    """Read the same as :func:`read_part`, with all values as their JSON texts.

    Args:
        path: the file.
        name: name of the file in messages.
        keep: selects images.

    Returns:
        The part, and the number of images left out.
    """
    images, annotations = _rows_of(path, name, keep)
    fields = top_level(read_json_text(path, name), name)
    texts = {key: record_texts(Path(name), fields, key) for key in ("images", "annotations")}
    part = {
        "images": [texts["images"][row] for row in images],
        "annotations": [texts["annotations"][row] for row in annotations],
    }
    return {**fields, **part}, len(texts["images"]) - len(images)


def _rows_of(path: Path, name: str, keep: Callable[[Image], bool]) -> tuple[list[int], list[int]]:
    """Return the rows of the images that are kept, and those of their annotations."""
    coco = read_coco(path, name)
    kept = np.array([keep(image) for image in coco.images], np.bool_)
    found = coco.objects
    return np.flatnonzero(kept).tolist(), found.rows[kept[found.positions]].tolist()


def read_field(path: Path, key: str) -> Any:
    """Read the value of one key of a COCO JSON besides its lists; None if it is missing.

    Raises:
        DataError: the file cannot be read or is not a JSON object.
    """
    name = str(path)
    text = top_level(read_json_text(path), name).get(key)
    return None if text is None else parse(bytes(text), name)


def record_texts(path: Path, fields: Mapping[str, msgspec.Raw], section: str) -> list[msgspec.Raw]:
    """Split a list of records into their JSON texts.

    Args:
        path: the file, for messages.
        fields: output of :func:`~tldet.coco.text.top_level`.
        section: key of the list; a missing list is empty.

    Raises:
        DataError: a record contains NaN or Infinity, which must not be copied to another JSON.
    """
    try:
        return msgspec.json.decode(fields.get(section, b"[]"), type=list[msgspec.Raw])
    except msgspec.DecodeError as error:
        raise _not_finite(path, section, error) from None


def record_values(path: Path, fields: Mapping[str, msgspec.Raw], section: str) -> list[Record]:
    """Decode a list of records; see :func:`record_texts`."""
    try:
        return msgspec.json.decode(fields.get(section, b"[]"), type=list[Record] | None) or []
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {section} are not in COCO's layout: {error}") from None
    except msgspec.DecodeError as error:
        raise _not_finite(path, section, error) from None


def _not_finite(path: Path, section: str, error: Exception) -> DataError:
    return DataError(f"{path}: '{section}' contains NaN or Infinity ({error}); replace it by a number")
