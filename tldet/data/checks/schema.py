"""Checks of every record of a COCO JSON that the reader rejects as a whole.

Each record is decoded with the reader's schema. Invalid records are reported and excluded from the other checks, unless
their correction is unambiguous: a number written as text, a box with swapped corners.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from tldet.coco.explain import record_name
from tldet.coco.partial_labels import LABELED
from tldet.coco.raw import Record
from tldet.coco.records import Annotation, Category, Image
from tldet.coco.variants import INTEGERS, convert_one
from tldet.data.checks.coordinates import correct_coordinates
from tldet.data.checks.findings import CODES, Finding, Repair
from tldet.data.checks.raw_boxes import all_finite, box_numbers, check_box, stated_size
from tldet.errors import DataError

SCHEMAS: Mapping[str, type[Any]] = {"images": Image, "categories": Category, "annotations": Annotation}
_OPTIONAL = ("file_name", "width", "height", "name", "area", "iscrowd", LABELED)
_NUMBERS = (*INTEGERS["images"], *INTEGERS["annotations"], "area", "iscrowd")


@dataclass
class Salvage:
    """The usable part of a COCO JSON.

    Attributes:
        name: the file.
        records: usable records of each list.
        rows: position in the file of each usable record.
        findings: problems of the unusable records.
    """

    name: str
    records: dict[str, list[Record]] = field(default_factory=lambda: {section: [] for section in SCHEMAS})
    rows: dict[str, list[int]] = field(default_factory=lambda: {section: [] for section in SCHEMAS})
    findings: list[Finding] = field(default_factory=list)

    @cached_property
    def _images(self) -> dict[Any, Record]:
        return {record["id"]: record for record in self.records["images"]}

    def image_of(self, record: Record) -> Record:
        """Return the image of an annotation; empty if there is none."""
        key = record.get("image_id")
        return self._images.get(key, {}) if isinstance(key, int | float) else {}

    def add(self, code: str, message: str, **values: Any) -> None:
        """Report a problem."""
        self.findings.append(Finding(code, CODES[code][0], self.name, message, **values))

    def keep(self, section: str, row: int, record: Record) -> None:
        """Keep a record for further checks."""
        self.records[section].append(record)
        self.rows[section].append(row)


def salvage(values: Any, name: str) -> Salvage:
    """Check all records of a parsed COCO JSON, and keep those that are valid.

    Args:
        values: the parsed file.
        name: name of the file in findings.
    """
    found = Salvage(name)
    if not isinstance(values, Mapping):
        found.add("record-invalid", "is not an object with images, annotations and categories")
        return found
    for section in ("images", "categories"):
        _decode(found, section, values.get(section))
        _drop_repeated(found, section)
    _check_labeled(found)
    if values.get("annotations") is not None:
        _decode(found, "annotations", values["annotations"])
        _resolve(found)
        correct_coordinates(found)
    return found


def _who(found: Salvage, section: str, row: int, record: Record) -> dict[str, Any]:
    """Return the annotation, box and image of a record, for a finding."""
    if section == "categories":
        return {}
    if section == "images":
        return {"image": str(record["file_name"])} if record.get("file_name") else {}
    known, image = record.get("id"), found.image_of(record)
    numbers = box_numbers(record.get("bbox"))
    sound = numbers is not None and all_finite(numbers)
    return {
        "annotation": known if isinstance(known, int) else record_name(section, row, record),
        "image": image.get("file_name"),
        "box": (*numbers[:2], numbers[0] + numbers[2], numbers[1] + numbers[3]) if numbers and sound else None,
    }


def _decode(found: Salvage, section: str, records: Any) -> None:
    if not isinstance(records, list):
        if records is not None:
            found.add("record-invalid", f"'{section}' must be a list")
        return
    for row, record in enumerate(records):
        if not isinstance(record, Mapping):
            found.add("record-invalid", f"{record_name(section, row, record)} must be an object")
            continue
        usable = _usable(found, section, row, dict(record))
        if usable is not None:
            found.keep(section, row, usable)


def _usable(found: Salvage, section: str, row: int, record: Record) -> Record | None:
    """Return the record, corrected if necessary and possible; None if it cannot be used."""
    record = _read_numbers(found, section, row, record)
    if section == "annotations":
        size = stated_size(found.image_of(record))
        checked = check_box(record, size, partial(_report, found, section, row, record))
        if checked is None:
            return None
        record = checked
    for _ in range(len(record) + 1):
        problem, key = _problem(section, row, record)
        if not problem:
            return record
        _report(found, section, row, record, "record-invalid", problem)
        if key not in _OPTIONAL:
            return None
        del record[key]
    return None


def _problem(section: str, row: int, record: Record) -> tuple[str, str]:
    """Return the problem of a record and its key; both empty for a valid record."""
    try:
        convert_one(section, row, record, SCHEMAS[section])
    except DataError as error:
        message = str(error).partition(": ")[2]
        return message, next((key for key in record if f"'{key}' " in message), "")
    return "", ""


def _report(found: Salvage, section: str, row: int, record: Record, code: str, message: str, **values: Any) -> None:
    change = values.pop("change", None)
    repairs = () if change is None else (Repair(section, row, change),)
    found.add(code, message, repairs=repairs, **{**_who(found, section, row, record), **values})


def _read_numbers(found: Salvage, section: str, row: int, record: Record) -> Record:
    """Return a record whose numbers written as text are parsed."""
    texts = {key: value for key, value in record.items() if key in _NUMBERS and isinstance(value, str)}
    change = {key: number for key, value in texts.items() if (number := _number(value)) is not None}
    if not change:
        return record
    named = ", ".join(f"'{key}' is the text {record[key]!r}" for key in change)
    message = f"{record_name(section, row, record)}: {named}; it must be a number"
    _report(found, section, row, record, "record-invalid", message, change=change, fix="write it as a number")
    return {**record, **change}


def _number(text: str) -> float | int | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def _drop_repeated(found: Salvage, section: str) -> None:
    """Keep the first record of each id; an identical duplicate can be removed."""
    noun = {"images": "image", "categories": "category"}[section]
    pairs = list(zip(found.rows[section], found.records[section], strict=True))
    found.records[section], found.rows[section] = [], []
    seen: dict[Any, Record] = {}
    for row, record in pairs:
        first = seen.setdefault(record["id"], record)
        if first is record:
            found.keep(section, row, record)
            continue
        same = first == record
        message = f"{noun} id {record['id']} occurs more than once" + (" (identical entries)" if same else "")
        fix = "remove the second entry" if same else "give each entry its own id"
        change = (Repair(section, row, None),) if same else ()
        found.add(f"{noun}-id-repeated", message, fix=fix, repairs=change, **_who(found, section, row, record))


def _check_labeled(found: Salvage) -> None:
    known = {record["id"] for record in found.records["categories"]}
    for row, record in zip(found.rows["images"], found.records["images"], strict=True):
        unknown = [key for key in record.get(LABELED) or () if key not in known]
        if unknown:
            message = f"image id {record['id']}: {LABELED} contains unknown category {unknown[0]}"
            found.add("labeled-unknown", message, fix="remove it", **_who(found, "images", row, record))
            record[LABELED] = [key for key in record[LABELED] if key in known]


def _resolve(found: Salvage) -> None:
    """Keep the annotations whose image and category exist; without any image or category, only that is reported."""
    pairs = list(zip(found.rows["annotations"], found.records["annotations"], strict=True))
    found.records["annotations"], found.rows["annotations"] = [], []
    known = {section: {one["id"] for one in found.records[section]} for section in ("images", "categories")}
    for row, record in pairs:
        unknown = list(_unknown(known, record))
        for key, code in unknown:
            message = f"{record_name('annotations', row, record)} has unknown {key} {record[key]}"
            found.add(
                code, message, fix=f"correct {key} or remove the annotation", **_who(found, "annotations", row, record)
            )
        if not unknown:
            found.keep("annotations", row, record)


def _unknown(known: Mapping[str, set[Any]], record: Record) -> Iterator[tuple[str, str]]:
    if known["images"] and record["image_id"] not in known["images"]:
        yield "image_id", "image-unknown"
    if known["categories"] and record["category_id"] not in known["categories"]:
        yield "category_id", "category-unknown"
