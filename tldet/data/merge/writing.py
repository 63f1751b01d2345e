"""Writing of a merged dataset as COCO JSON; fields other than ids are copied unchanged."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from tldet.coco.ids import renumber_repeated
from tldet.coco.partial_labels import LABELED
from tldet.coco.raw import Record
from tldet.data.merge.classes import MergedClasses
from tldet.data.merge.join import Joined
from tldet.data.merge.source import MergeSource
from tldet.system.output import replacing

RecordFields = dict[str, Any]  # a value is JSON text, or a new value
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def merge_licenses(sources: Sequence[MergeSource]) -> tuple[list[Record], list[dict[int, int]]]:
    """Join the licenses, equal ones once; return them, and for each source a table from its ids to the new ones."""
    firsts: dict[str, Record] = {}
    for record in (record for source in sources for record in source.licenses):
        firsts.setdefault(_text(record), record)
    ids = renumber_repeated(np.array([record["id"] for record in firsts.values()], np.int64)).tolist()
    id_of = dict(zip(firsts, ids, strict=True))
    tables = [{record["id"]: id_of[_text(record)] for record in source.licenses} for source in sources]
    return [{**record, "id": id_of[text]} for text, record in firsts.items()], tables


def _text(record: Record) -> str:
    return json.dumps(record, sort_keys=True)


def write_joined(path: Path, joined: Joined, classes: MergedClasses, file_names: Sequence[str]) -> int:
    """Write a split of a merged dataset.

    Args:
        path: the JSON; its folder exists.
        joined: the split.
        classes: the merged classes.
        file_names: (M) file names of the merged images, relative to the folder of ``path``.

    Returns:
        Number of images whose records differ in other fields; the fields of the first record are kept.

    Raises:
        OutputError: the file cannot be written.
    """
    licenses, license_tables = merge_licenses(joined.sources)
    images = _Images(joined, classes, file_names, license_tables)
    made_of = ", ".join(str(source.path) for source in joined.sources)
    tail = {"categories": classes.records, "licenses": licenses, "info": {"description": f"merged from {made_of}"}}
    with replacing(path) as file:
        _write_list(file, b'{"images": [\n', images.texts())
        _write_list(file, b'\n],\n"annotations": [\n', _object_texts(joined))
        file.write(b"\n],\n" + msgspec.json.encode(tail)[1:] + b"\n")
    return images.differing


def _write_list(file: IO[bytes], head: bytes, texts: Iterator[bytes]) -> None:
    file.write(head)
    for number, text in enumerate(texts):
        file.write(b",\n" + text if number else text)


class _Images:
    """JSON texts of the merged images, and the number of images whose records differ."""

    def __init__(
        self, joined: Joined, classes: MergedClasses, file_names: Sequence[str], licenses: Sequence[dict[int, int]]
    ) -> None:
        self.joined, self.file_names, self.licenses = joined, file_names, licenses
        self.all = frozenset(classes.names)
        self.differing = 0
        self.records: defaultdict[int, list[int]] = defaultdict(list)
        for record, image in enumerate(joined.image_of.tolist()):
            self.records[image].append(record)

    def texts(self) -> Iterator[bytes]:
        """Yield the JSON text of each image."""
        for image, image_id in enumerate(self.joined.image_ids.tolist()):
            fields = self._united(image)
            fields |= {"id": image_id, "file_name": self.file_names[image]}
            labeled = self.joined.labeled[image]
            if labeled != self.all:
                fields[LABELED] = sorted(labeled)
            yield msgspec.json.encode(fields)

    def _united(self, image: int) -> RecordFields:
        """Join the fields of all records of an image; the first record takes precedence."""
        first, *others = (self._own(record) for record in self.records[image])
        if any(first.get(key, value) != value for fields in others for key, value in fields.items()):
            self.differing += 1
        united = dict(first)
        for fields in others:
            united = {**fields, **united}
        return united

    def _own(self, record: int) -> RecordFields:
        """Return the fields of an image record that are copied from its source."""
        number, row = self.joined.record(record)
        fields: RecordFields = dict(_fields.decode(self.joined.sources[number].images[row]))
        if "license" in fields:
            with suppress(msgspec.DecodeError, KeyError):  # without a valid license id, the text is copied
                fields["license"] = self.licenses[number][msgspec.json.decode(fields["license"], type=int)]
        return {key: value for key, value in fields.items() if key not in ("id", "file_name", LABELED)}


def _object_texts(joined: Joined) -> Iterator[bytes]:
    """Yield the kept objects as JSON texts; an unchanged object is copied byte for byte."""
    images = joined.image_ids[joined.image_positions].tolist()
    ids, categories, kept = joined.annotation_ids.tolist(), joined.category_ids.tolist(), joined.kept.tolist()
    position = -1
    for source in joined.sources:
        old_images = source.image_ids[source.image_positions].tolist()
        old = zip(source.stated_ids.tolist(), old_images, source.category_ids.tolist(), strict=True)
        for row, (text, before) in enumerate(zip(source.objects, old, strict=True)):
            position += 1
            after = (ids[position], images[position], categories[position])
            if kept[position]:
                new = dict(zip(("id", "image_id", "category_id"), after, strict=True)) if after != before else {}
                new |= {"bbox": source.boxes[row].tolist()} if source.derived[row] else {}
                yield msgspec.json.encode(_fields.decode(text) | new) if new else bytes(text)
