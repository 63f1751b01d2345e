"""Writer of YOLO: ``data.yaml``, ``images/SPLIT`` and ``labels/SPLIT``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldet.coco.checks import MOVED
from tldet.data.formats.data_yaml import dump_data_yaml
from tldet.data.formats.prepare import clip_box
from tldet.data.formats.records import Dataset, ImageRecord, Shape, bounds, pairs
from tldet.data.formats.writers.layout import Splits, Written, image_names
from tldet.system.output import write_text

_DIGITS = 12  # significant digits of relative coordinates
_EXACT = 1e-3  # pixels by which a box may differ from the bounds of its polygon, which is written instead


def write_yolo(found: Dataset, splits: Splits, classes: Sequence[str], out: Path) -> Written:
    """Write a dataset; images without a stated split become the training split.

    Raises:
        OutputError: a file cannot be written.
    """
    written, index = Written(), {name: number for number, name in enumerate(classes)}
    if None in splits:
        written.tally.add(str(found.root), "dataset", "without splits written as a training split")
    named = {split or "train": images for split, images in splits.items()}
    for split, images in named.items():
        taken: set[str] = set()
        for image, name in zip(images, image_names(images, written, taken), strict=True):
            lines = [line for shape in image.shapes if (line := _line(image, shape, index, written))]
            written.images.append((image.path, out / "images" / split / name))
            write_text((out / "labels" / split / name).with_suffix(".txt"), "".join(f"{line}\n" for line in lines))
    write_text(out / "data.yaml", dump_data_yaml(classes, list(named)))
    return written


def _line(image: ImageRecord, shape: Shape, index: dict[str, int], written: Written) -> str:
    """Return the line of an object: its polygon if that is its whole mask and has its box, else the box."""
    who, tally = image.who(shape), written.tally
    if shape.crowd:
        tally.add(who, "crowd region", "dropped: YOLO labels have none")
        return ""
    if shape.difficult:
        tally.add(who, "'difficult' flag", "dropped: YOLO labels have none")
    assert image.size is not None
    height, width = image.size
    if shape.rle is not None:
        tally.add(who, "pixel mask", "dropped, the box is kept")
    if len(shape.polygons) > 1:
        tally.add(who, "mask of several polygons", "dropped, the box is kept", "masks of several polygons")
    written.boxes += 1
    if len(shape.polygons) == 1 and _has_box(shape) and _inside(shape.polygons[0], image):
        written.masks += 1
        points = pairs(shape.polygons[0])
        return " ".join([str(index[shape.label]), *(f"{_text(x / width)} {_text(y / height)}" for x, y in points)])
    if len(shape.polygons) == 1:
        tally.add(who, "polygon", "with another box, or outside the image, dropped; the box is kept")
    return f"{index[shape.label]} {_relative_box(image, shape, written)}"


def _has_box(shape: Shape) -> bool:
    assert shape.box is not None
    around = bounds(shape.polygons)
    return max(abs(one - other) for one, other in zip(around, shape.box, strict=True)) <= _EXACT


def _inside(polygon: Sequence[float], image: ImageRecord) -> bool:
    assert image.size is not None
    height, width = image.size
    return all(0 <= x <= width and 0 <= y <= height for x, y in pairs(polygon))


def _relative_box(image: ImageRecord, shape: Shape, written: Written) -> str:
    assert image.size is not None
    assert shape.box is not None
    height, width = image.size
    if min(shape.box) < 0 or shape.box[2] > width or shape.box[3] > height:
        written.tally.add(image.who(shape), "box", MOVED, "boxes")
        shape = Shape(shape.label, shape.location, shape.box)
        clip_box(image, shape)
    assert shape.box is not None
    x0, y0, x1, y1 = shape.box
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return " ".join(map(_text, values))


def _text(value: float) -> str:
    return f"{value:.{_DIGITS}g}"
