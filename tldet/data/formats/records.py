"""Common records of all formats: images with their objects."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.errors import DataError
from tldet.structures.image import Size
from tldet.text import counted

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels
_NAMED = 5  # locations named in a note; the others are counted
RELATIVE_TOLERANCE = 1e-2  # by which relative coordinates may lie outside 0..1


@dataclass(slots=True)
class Shape:
    """One object of an image.

    Attributes:
        label: class name.
        location: element of the annotation file, such as ``line 12``.
        box: x0, y0, x1, y1 in pixels; None takes the bounds of ``polygons`` or ``rle``.
        polygons: x, y, x, y, ... in pixels, one list per part.
        rle: COCO's run-length mask.
        crowd: a region with many objects, as ``iscrowd`` of COCO.
        difficult: the ``difficult`` flag of Pascal VOC.
        area: in square pixels, if the format states it.
        id: id in a COCO JSON.
    """

    label: str
    location: str
    box: Box | None
    polygons: list[list[float]] = field(default_factory=list)
    rle: dict[str, Any] | None = None
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    id: int | None = None


@dataclass(slots=True)
class ImageRecord:
    """One image.

    Attributes:
        path: the image file, which may be missing.
        source: annotation file that holds the objects; the image file itself if there is none.
        location: element of ``source`` that describes the image; empty if that is the whole file.
        split: ``train``, ``val`` or ``test``; None if the source does not state it.
        size: (height, width) as stated; None takes that of the file.
        shapes: the objects.
        id: id in a COCO JSON.
    """

    path: Path
    source: Path
    location: str
    split: str | None
    size: Size | None
    shapes: list[Shape]
    id: int | None = None

    def who(self, shape: Shape | None = None) -> str:
        """Name the image, or one of its objects, in a message: annotation file and element."""
        location = self.location if shape is None else shape.location
        return f"{self.source}: {location}" if location else str(self.source)


class Tally:
    """Counts of the objects and fields that a reader or writer leaves out or changes, with the first locations."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[str]] = {}
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, location: str, noun: str, text: str, plural: str = "") -> None:
        """Count one object or field, reported as ``3 boxes of zero extent left out (a.xml: line 12, ...)``."""
        key = (noun, text, plural)
        self._counts[key] = self._counts.get(key, 0) + 1
        if len(locations := self._found.setdefault(key, [])) < _NAMED:
            locations.append(location)

    def counts(self) -> dict[str, int]:
        """Return the counts by noun and text."""
        return {f"{plural or noun + 's'} {text}": count for (noun, text, plural), count in self._counts.items()}

    def notes(self) -> list[str]:
        """Return one line for each noun and text."""
        lines = []
        for (noun, text, plural), count in self._counts.items():
            locations = self._found[noun, text, plural]
            more = ", ..." if count > len(locations) else ""
            lines.append(f"{counted(count, noun, plural or None)} {text} ({', '.join(locations)}{more})")
        return lines


@dataclass
class Dataset:
    """A dataset as read from its own format.

    Attributes:
        format: name of the format.
        root: folder or file that was read.
        images: the images of all splits.
        classes: class names in the order of the source; a format without an order gives them sorted.
        details: decisions of the reader, for the log.
        tally: counts of objects and fields that the reader left out or changed.
        category_ids: ids of the classes in a COCO JSON.
    """

    format: str
    root: Path
    images: list[ImageRecord]
    classes: list[str]
    details: list[str] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    category_ids: dict[str, int] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return the lines of the tally, with paths relative to the root."""
        return self.relative(self.tally.notes())

    def relative(self, lines: Sequence[str]) -> list[str]:
        """Return lines with paths relative to the root."""
        return [line.replace(f"{self.root}{os.sep}", "") for line in lines]

    def sorted(self) -> list[ImageRecord]:
        """Return all images in the order of file names."""
        return sorted(self.images, key=lambda one: (one.path.name, str(one.path)))

    def splits(self) -> dict[str | None, list[ImageRecord]]:
        """Return the images by split; each split in the order of file names."""
        found: dict[str | None, list[ImageRecord]] = {}
        for image in self.sorted():
            found.setdefault(image.split, []).append(image)
        return {split: found[split] for split in (None, "train", "val", "test") if split in found}


def class_names(images: Iterable[ImageRecord]) -> list[str]:
    """Return the sorted class names of all objects."""
    return sorted({shape.label for image in images for shape in image.shapes})


def finite_number(value: Any, who: str, key: str) -> float:
    """Parse a finite number.

    Raises:
        DataError: it is not one; the message names ``who`` and ``key``.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        shown = "missing" if value is None or value == "" else f"{str(value)[:40]!r}, not a number"
        raise DataError(f"{who}: {key} is {shown}") from None
    if not math.isfinite(found) or isinstance(value, bool):
        raise DataError(f"{who}: {key} is {value}; it must be a finite number")
    return found


def side(value: Any, who: str, key: str) -> int:
    """Parse the width or height of an image.

    Raises:
        DataError: it is not a whole number above 0.
    """
    found = finite_number(value, who, key)
    if found < 1 or found != int(found) or found >= 2**31:
        raise DataError(f"{who}: {key} is {value}; it must be a whole number above 0")
    return int(found)


def label_text(value: Any, who: str, key: str) -> str:
    """Return a class name without surrounding blanks.

    Raises:
        DataError: it is missing, empty or not text.
    """
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{who}: {key} is {'missing or empty' if not value else 'not text'}; name a class")
    return value.strip()


def ordered_box(values: Sequence[float], who: str, keys: Sequence[str]) -> Box:
    """Check that x0 <= x1 and y0 <= y1; boxes without extent are counted later.

    Raises:
        DataError: x1 < x0 or y1 < y0; the message names the ``keys``.
    """
    x0, y0, x1, y1 = values
    for low, high, first, second in ((x0, x1, keys[0], keys[2]), (y0, y1, keys[1], keys[3])):
        if high < low:
            raise DataError(f"{who}: {second} {high:g} is smaller than {first} {low:g}")
    return x0, y0, x1, y1


def bounds(polygons: Iterable[Sequence[float]]) -> Box:
    """Return the box around one or more polygons."""
    points = list(polygons)
    xs, ys = [x for one in points for x in one[::2]], [y for one in points for y in one[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def polygon_of(points: Sequence[tuple[float, float]]) -> list[float]:
    """Flatten points to x, y, x, y, ..."""
    return [value for point in points for value in point]


def pairs(values: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield the points of x, y, x, y, ..."""
    return zip(values[::2], values[1::2], strict=True)
