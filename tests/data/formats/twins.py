"""The same boxes in several formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tldet.data.formats.prepare import complete
from tldet.data.formats.records import Dataset
from tldet.data.formats.source import SourceOptions, read_source

# Format and annotations of the 30 images in voc_formats.
TWINS = {
    "coco": "coco/instances.json",
    "voc": "pascal_voc",
    "cvat": "cvat/annotations.xml",
    "labelme": "labelme",
    "yolo": "yolo",
}


def read_twin(folder: Path, name: str) -> Dataset:
    """Read one of the twins."""
    return prepared(folder / TWINS[name], voc_boxes="continuous")


def prepared(path: Path, **options: Any) -> Dataset:
    """Read a source and apply the rules of the COCO reader."""
    found = read_source(path, SourceOptions(**options))
    complete(found)
    return found


Boxes = dict[tuple[str, str], list[tuple[float, ...]]]


def boxes_of(found: Dataset) -> Boxes:
    """Return the sorted boxes by file name and class."""
    boxes: Boxes = {}
    for image in found.images:
        for shape in image.shapes:
            assert shape.box is not None
            boxes.setdefault((image.path.name, shape.label), []).append(shape.box)
    return {key: sorted(value) for key, value in boxes.items()}
