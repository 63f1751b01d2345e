"""YOLO: one text file per image, ``class x y width height`` or ``class x y x y x y ...`` relative to the image size.

``data.yaml`` states classes and splits, as for YOLOv5 to YOLO11 and in Roboflow's exports. Without it, the classes come
from ``classes.txt`` or ``*.names``, and the splits from the folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tldet.data.formats.data_yaml import YamlData, is_data_yaml, read_data_yaml
from tldet.data.formats.records import RELATIVE_TOLERANCE, Dataset, ImageRecord, Shape, bounds, finite_number
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.sizes import fill_sizes
from tldet.data.formats.tree import Tree
from tldet.errors import DataError
from tldet.structures.image import Size
from tldet.system.inputs import exists, is_file, read_file
from tldet.text import are, counted

_LINE = re.compile(rb"\s*\d+(\.0*)?([ \t]+-?[0-9.]+(e-?\d+)?){4,}\s*", re.IGNORECASE)
_NAME_FILES = ("classes.txt", "obj.names", "*.names", "predefined_classes.txt", "_darknet.labels")


def _find(tree: Tree) -> list[Path]:
    """Return the ``data.yaml``, or else the label files."""
    yamls = [path for path in tree.annotations(".yaml", ".yml") if is_data_yaml(tree.start(path))]
    return yamls or [path for path in tree.annotations(".txt") if is_label_text(tree.start(path))]


def is_label_text(start: bytes) -> bool:
    """Return True if the first line with text is one of a label file."""
    first = next((line for line in start.splitlines() if line.strip()), b"")
    return _LINE.fullmatch(first) is not None


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read images and labels; an image without a label file has no objects.

    Raises:
        DataError: a path of ``data.yaml`` is missing, or a label is wrong; the message names file and line.
    """
    data = _from_yaml(files) if files[0].suffix.lower() in (".yaml", ".yml") else _from_labels(tree, files)
    found = Dataset("yolo", tree.root, [], list(data.names), data.details)
    for split, images in data.images.items():
        for path in images:
            source = data.labels.get(path) or _label_file(path) or path
            found.images.append(ImageRecord(path, source, "", split, None, []))
    if not found.images:
        raise DataError(f"{files[0]}: its splits hold no image")
    fill_sizes(found.images)
    labeled = [image for image in found.images if image.source != image.path]
    for image in labeled:
        assert image.size is not None
        image.shapes = _read_labels(image.source, data, image.size, found)
    if empty := len(found.images) - len(labeled):
        found.details.append(f"{empty} of {counted(len(found.images), 'image')} without a label file")
    return found


def _from_yaml(files: Sequence[Path]) -> YamlData:
    if len(files) > 1:
        named = ", ".join(str(path) for path in files[:4])
        raise DataError(f"several data.yaml: {named}; use one of them instead of the folder")
    return read_data_yaml(files[0])


def _from_labels(tree: Tree, files: Sequence[Path]) -> YamlData:
    """Return the data of a folder without ``data.yaml``: the image of each label file, and images beside these."""
    matched = {path: tree.find(path.stem, path) for path in files}
    if lacking := [path for path, image in matched.items() if not is_file(image)]:
        raise DataError(
            f"{lacking[0]}: has no image ({len(lacking)} of {counted(len(files), 'label file')}); use --images"
        )
    labels = {image: path for path, image in matched.items()}
    folders = {image.parent for image in labels}
    every = {*labels, *(path for path in tree.image_paths() if path.parent in folders)}
    images: dict[str | None, list[Path]] = {}
    for image in sorted(every):
        images.setdefault(tree.split(labels.get(image, image).parent / "_"), []).append(image)
    return YamlData(_names(tree), images, labels=labels)


def _names(tree: Tree) -> tuple[str, ...]:
    folders = [tree.root, *sorted({path.parent for path in tree.annotations(".txt")}), tree.root.parent]
    paths = [path for folder in folders for pattern in _NAME_FILES for path in sorted(folder.glob(pattern))]
    if not paths:
        raise DataError(f"{tree.root}: has no class names; add data.yaml or classes.txt with one name per line")
    text = read_file(paths[0], DataError).decode("utf-8-sig", errors="replace")
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(set(names)) < len(names):
        raise DataError(f"{paths[0]}: a class name occurs twice")
    return names


def _label_file(image: Path) -> Path | None:
    """Return the label file of an image, in ``labels`` for ``images`` or beside the image; None if there is none."""
    parts = list(image.parts)
    folders = [row for row, part in enumerate(parts[:-1]) if part.lower() == "images"]
    swapped = [Path(*parts[:row], "labels", *parts[row + 1 :]).with_suffix(".txt") for row in reversed(folders)]
    near = [*swapped, image.with_suffix(".txt"), image.parent / "labels" / f"{image.stem}.txt"]
    return next((path for path in near if exists(path)), None)


def _read_labels(path: Path, data: YamlData, size: Size, found: Dataset) -> list[Shape]:
    """Read one label file.

    Raises:
        DataError: a line is wrong; the message names it.
    """
    try:
        text = read_file(path, DataError).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not a text file") from None
    shapes = []
    for row, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            shapes.append(_shape(words, f"{path}: line {row}", row, data, size, found))
    return shapes


def _shape(words: list[str], who: str, row: int, data: YamlData, size: Size, found: Dataset) -> Shape:
    label = data.names[_class(words[0], who, len(data.names))]
    values = [finite_number(word, who, "a coordinate") for word in words[1:]]
    height, width = size
    if data.keypoints and len(values) == 4 + data.keypoints:
        found.tally.add(who, "object", "read without its keypoints")
        values = values[:4]
    if len(values) == 4:
        _within(values, who)
        x, y, wide, high = values
        if wide < 0 or high < 0:
            raise DataError(f"{who}: {'width' if wide < 0 else 'height'} is negative")
        box = (x - wide / 2) * width, (y - high / 2) * height, (x + wide / 2) * width, (y + high / 2) * height
        return Shape(label, f"line {row}", box)
    if len(values) < 6 or len(values) % 2:
        confidence = " (a detection with its score?)" if len(values) == 5 else ""
        raise DataError(
            f"{who}: has {counted(len(words), 'value')}{confidence}; it must be 'class x y width height' or a "
            "polygon of 3 or more points"
        )
    _within(values, who)
    polygon = [value * (height if position % 2 else width) for position, value in enumerate(values)]
    return Shape(label, f"line {row}", bounds([polygon]), [polygon])


def _class(word: str, who: str, count: int) -> int:
    if not re.fullmatch(r"\d+(\.0*)?", word):
        raise DataError(f"{who}: class {word[:40]!r} is not a whole number from 0")
    index = int(word.partition(".")[0]) if len(word) < 19 else count
    if index >= count:
        known = f"{are(count)} {counted(count, 'name')}"
        raise DataError(f"{who}: class {word[:40]} is unknown: there {known}, numbered from 0")
    return index


def _within(values: Sequence[float], who: str) -> None:
    for value in values:
        if not -RELATIVE_TOLERANCE <= value <= 1 + RELATIVE_TOLERANCE:
            raise DataError(f"{who}: {value:g} lies outside 0..1; coordinates must be relative to the image size")


register(Format("yolo", "YOLO", _find, _read))
