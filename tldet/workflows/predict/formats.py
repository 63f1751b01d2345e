"""Conversion of results to COCO JSON, CSV and Parquet, one image at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from tldet.coco.results import write_csv
from tldet.errors import ConfigError, DataError
from tldet.system.output import replacing
from tldet.workflows.predict.outputs import OutputPaths

Lines = Callable[[], Iterable[Mapping[str, Any]]]  # returns the results of all images and frames in order
_ROWS = 50_000  # per Parquet row group


def require_parquet(path: Path | None) -> None:
    """Check that Parquet can be written, before the run.

    Raises:
        ConfigError: the package is missing.
    """
    if path and find_spec("pyarrow") is None:
        raise ConfigError("--parquet: pyarrow is not installed: pip install 'tldet[parquet]'")


def numbered(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int | str, Mapping[str, Any]]]:
    """Yield image id and line; ids count from 1 unless they are taken from a dataset."""
    for number, line in enumerate(lines, 1):
        yield line.get("image_id", number), line


def records(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield COCO results with ``file_name`` and ``category_name``."""
    for image_id, line in numbered(lines):
        for one in line["detections"]:
            named = {"file_name": line["file_name"], "category_name": one["category_name"]}
            yield {"image_id": image_id, **{k: v for k, v in one.items() if k != "category_name"}, **named}


def write_all(paths: OutputPaths, lines: Lines, categories: Mapping[int, str]) -> None:
    """Write the results in all formats; after an error, the remaining formats are still written.

    Args:
        paths: the outputs.
        lines: the results.
        categories: name of each category id.

    Raises:
        DataError: an output cannot be written.
    """
    writers: list[tuple[Path | None, Callable[[Path], None]]] = [
        (paths.json, lambda path: _write_json(path, records(lines()))),
        (paths.csv, lambda path: write_csv(path, records(lines()))),
        (paths.coco, lambda path: _write_coco(path, lines, categories)),
        (paths.parquet, lambda path: _write_parquet(path, records(lines()))),
    ]
    errors = []
    for path, write in writers:
        try:
            if path:
                write(path)
        except DataError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _write_json(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(path) as file:
        _write_list(file, rows)
        file.write(b"\n")


def _write_list(file: BinaryIO, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSON list, one item at a time."""
    start = "["
    for row in rows:
        file.write((start + json.dumps(row, ensure_ascii=False)).encode(errors="backslashreplace"))
        start = ", "
    file.write(b"]" if start == ", " else b"[]")


def _write_coco(path: Path, lines: Lines, categories: Mapping[int, str]) -> None:
    """Write a COCO dataset with the detections as annotations; each keeps its ``score``."""
    images = (
        {"id": image_id, **{name: line[name] for name in ("file_name", "width", "height")}}
        for image_id, line in numbered(lines())
    )
    parts: dict[str, Iterable[Mapping[str, Any]]] = {
        "images": images,
        "annotations": _annotations(lines()),
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
    }
    with replacing(path) as file:
        for number, (name, rows) in enumerate(parts.items()):
            file.write(f'{", " if number else "{"}"{name}": '.encode())
            _write_list(file, rows)
        file.write(b"}\n")


def _annotations(lines: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    copied = ("image_id", "category_id", "bbox", "score", "segmentation")
    for number, record in enumerate(records(lines), 1):
        kept = {name: record[name] for name in copied if name in record}
        yield {"id": number, **kept, "area": record["bbox"][2] * record["bbox"][3], "iscrowd": 0}


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write a table with the columns of the CSV file, and the RLE of masks as JSON."""
    import pyarrow as pa
    from pyarrow import parquet

    first = list(islice(rows, 1))
    ids = pa.string() if first and isinstance(first[0]["image_id"], str) else pa.int64()
    numbers = [(name, pa.float64()) for name in ("score", "x", "y", "width", "height")]
    named = [("file_name", pa.string()), ("image_id", ids), ("category_id", pa.int64()), ("category_name", pa.string())]
    masks = [("segmentation", pa.string())] if first and "segmentation" in first[0] else []
    schema = pa.schema([*named, *numbers, *masks])
    left = chain(first, rows)
    with replacing(path) as file, parquet.ParquetWriter(file, schema) as writer:
        while group := [_row(one) for one in islice(left, _ROWS)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    x, y, width, height = record["bbox"]
    row = {name: _text(value) for name, value in record.items() if name not in ("bbox", "segmentation")}
    mask = {"segmentation": json.dumps(record["segmentation"])} if "segmentation" in record else {}
    return {**row, "x": x, "y": y, "width": width, "height": height, **mask}


def _text(value: Any) -> Any:
    """Return a value with lone surrogates escaped, which Parquet does not store."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
