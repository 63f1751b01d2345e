"""COCO JSON: read by :mod:`tldet.coco.reader`, with the splits of :mod:`tldet.data.layouts`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tldet.coco.checks import training_fields
from tldet.coco.reader import Coco, read_coco
from tldet.coco.recognize import examine
from tldet.coco.segmentations import drop_degenerate, parse_segmentation
from tldet.data.file_names import resolve_names
from tldet.data.formats.records import Dataset, ImageRecord, Shape
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.tree import Tree
from tldet.data.image_folders import find_images
from tldet.data.layouts import AnnotationFiles, Split
from tldet.data.split_names import SPLIT_NAMES
from tldet.errors import DataError
from tldet.structures import rle

_OPTIONS = dict.fromkeys((*SPLIT_NAMES, "unclear"), "use the annotation file instead of the folder")


def _find(tree: Tree) -> list[Path]:
    """Return the JSON files with object annotations."""
    candidates = [path for path in tree.annotations(".json") if b'"shapes"' not in tree.start(path)[:4096]]
    return [path for path in candidates if not examine(path).problem]


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read the splits of a folder, or one JSON.

    Raises:
        DataError: see :func:`~tldet.coco.reader.read_coco`.
    """
    found = Dataset("coco", tree.root, [], [])
    names: dict[str | None, Split]
    if tree.only is not None:
        names = {tree.split(files[0]): _split(tree, files[0])}
    else:
        names = {name: _split(tree, path) for name, path in _by_split(tree.root).items()}
    for name, split in names.items():
        _read_split(found, name, split)
    return found


def _by_split(folder: Path) -> dict[str | None, Path]:
    """Return the annotation files of a folder by split; None for a single file of an unknown split."""
    files = AnnotationFiles.find(folder, options=_OPTIONS)
    paths: dict[str | None, Path | None] = {}
    if any(one.split in ("train", None) for one in files.needed()):
        paths["train"] = files.train()
    paths |= {"val": files.val(paths.get("train")), "test": files.test()}
    found = {split: path for split, path in paths.items() if path is not None}
    return {None: found["train"]} if list(found) == ["train"] and not _is_train(files, found["train"]) else found


def _is_train(files: AnnotationFiles, path: Path) -> bool:
    return any(one.path == path and one.split == "train" for one in files.candidates)


def _split(tree: Tree, path: Path) -> Split:
    return Split(path, tree.images or find_images(path, tree.root))


def _read_split(found: Dataset, name: str | None, split: Split) -> None:
    path = split.annotations
    coco = read_coco(path, segmentations=True)
    training_fields(str(path), coco.images, coco.categories)
    found.details += coco.notes
    ordered = [str(one.name) for one in sorted(coco.categories, key=lambda one: one.id)]
    found.classes += [one for one in ordered if one not in found.classes]
    found.category_ids |= {str(one.name): one.id for one in coco.categories if str(one.name) not in found.category_ids}
    files = resolve_names(split.images, [str(image.file_name) for image in coco.images], path)
    records = [
        ImageRecord(
            split.images / file, path, f"image id {image.id}", name, (image.height or 0, image.width or 0), [], image.id
        )
        for image, file in zip(coco.images, files, strict=True)
    ]
    _add_objects(found, coco, records)
    found.images += records


def _add_objects(found: Dataset, coco: Coco, records: Sequence[ImageRecord]) -> None:
    names = {one.id: str(one.name) for one in coco.categories}
    objects = coco.objects
    columns = (objects.ids, objects.positions, objects.category_ids, objects.boxes, objects.crowd, objects.areas)
    for row, (key, position, category, box, crowd, area) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        image = records[position]
        shape = Shape(names[category], f"annotation id {key}", (box[0], box[1], box[0] + box[2], box[1] + box[3]))
        shape.id, shape.crowd, shape.area = key, bool(crowd), None if area != area else area
        _add_outline(found, image, shape, parse_segmentation(objects.segmentation_text(row)))
        image.shapes.append(shape)


def _add_outline(found: Dataset, image: ImageRecord, shape: Shape, outline: Any) -> None:
    outline, dropped = drop_degenerate(outline)
    if dropped:
        found.tally.add(image.who(shape), "segmentation", "without its polygons of fewer than 3 points")
    if outline is None:
        return
    assert image.size is not None
    if problem := rle.segmentation_problem(outline, image.size):
        raise DataError(f"{image.who(shape)} {problem}")
    if isinstance(outline, dict):
        shape.rle = outline
    else:
        shape.polygons = outline


register(Format("coco", "COCO JSON", _find, _read))
