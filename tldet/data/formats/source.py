"""Conversion of annotations in any format to COCO JSON files in the folder of a run or in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tldet.coco.class_files import read_class_names
from tldet.data.formats.detect import detect_format
from tldet.data.formats.prepare import check_files, complete
from tldet.data.formats.records import Dataset, ImageRecord
from tldet.data.formats.registry import ReadOptions, VocBoxes, formats
from tldet.data.formats.to_coco import coco_values, image_root, names_below
from tldet.data.formats.tree import Tree
from tldet.data.layouts import Split
from tldet.errors import DataError
from tldet.system.cache import cache_root
from tldet.system.inputs import exists, is_file, read_file, real_path
from tldet.system.output import write_bytes
from tldet.text import counted

log = logging.getLogger(__name__)
FOLDER = "dataset"  # subfolder of a run with the JSON files of a source in another format


@dataclass(frozen=True)
class SourceOptions:
    """Options for reading annotations.

    Attributes:
        format: name of the format; None detects it.
        voc_boxes: meaning of the corners in Pascal VOC files; see :mod:`tldet.data.formats.voc`.
        classes: file with the class names to use, in label order; None takes those of the annotations.
        missing: images may be missing or of another size than stated; they are skipped later. None if the command has
            no option for it.
    """

    format: str | None = None
    voc_boxes: VocBoxes = "auto"
    classes: str | Path | None = None
    missing: bool | None = None


def read_source(
    path: Path, options: SourceOptions, images: Path | None = None, *, frames: Path | None = None
) -> Dataset:
    """Read a source in any format, COCO included.

    Args:
        path: the data folder, or one annotation file.
        options: see :class:`SourceOptions`.
        images: folder to look for images in; searched by default.
        frames: folder for frames of videos that the annotations name; None does not look for videos.

    Raises:
        DataError: no format fits, several do, or the annotations are wrong; the message names file and element.
    """
    tree = Tree(path, images, frames)
    chosen = detect_format(tree, options.format)
    if chosen is None:
        titles = ", ".join(one.title for one in formats().values())
        raise DataError(f"{path}: contains no annotations in a known format ({titles})")
    return chosen[0].read(tree, chosen[1], ReadOptions(options.voc_boxes))


def is_foreign(path: Path, options: SourceOptions) -> bool:
    """Return True if a source is not plain COCO JSON, so that :func:`derive` must read it.

    Raises:
        DataError: several formats fit.
    """
    if options.classes is not None or options.format not in (None, "coco"):
        return True
    if options.format == "coco" or not exists(path):
        return False
    chosen = detect_format(Tree(path))
    return chosen is not None and chosen[0].name != "coco"


def derive(
    sources: Mapping[str | None, Path], options: SourceOptions, out: Path | None, images: Path | None = None
) -> dict[str | None, Split]:
    """Write the splits of sources as COCO JSON files, with the same classes in all of them.

    Args:
        sources: the sources by split; a source under None states its splits itself.
        options: see :class:`SourceOptions`.
        out: folder of the JSON files; None takes one in the cache.
        images: folder to look for images in; searched by default.

    Returns:
        The splits; under None the images whose split is not stated.

    Raises:
        DataError: the annotations are wrong, or an image is missing; the message names file and element.
    """
    out = _cached(sources, options, images) if out is None else out
    classes = None if options.classes is None else list(read_class_names(Path(options.classes)))
    found = {split: read_source(path, options, images, frames=out / "frames") for split, path in sources.items()}
    union = classes or list(dict.fromkeys(name for one in found.values() for name in one.classes))
    splits: dict[str | None, tuple[Dataset, list[ImageRecord]]] = {}
    for split, one in found.items():
        complete(one, classes)
        if not options.missing and one.format != "coco":
            check_files(one, skippable=options.missing is not None)
        _report(one)
        splits |= {
            own: (one, images) for own, images in (one.splits() if split is None else {split: one.sorted()}).items()
        }
    root = image_root([image for _, images in splits.values() for image in images])
    return {
        split: Split(_write(one, images, union, root, out / f"{split or 'all'}.json"), root)
        for split, (one, images) in splits.items()
    }


def _cached(sources: Mapping[str | None, Path], options: SourceOptions, images: Path | None) -> Path:
    """Return a folder of the cache for a source and its options."""
    paths = [f"{split} {real_path(path)}" for split, path in sources.items()]
    text = "\n".join([*paths, str(options), str(images and real_path(images))])
    key = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
    return cache_root() / "formats" / key / real_path(next(iter(sources.values()))).stem  # named after the source


def _report(found: Dataset) -> None:
    objects = sum(len(image.shapes) for image in found.images)
    details = "".join(f"; {one}" for one in found.details)
    size = f"{counted(len(found.images), 'image')}, {counted(objects, 'object')}"
    log.info("%s: format %s, %s%s", found.root, formats()[found.format].title, size, details)
    for line in found.notes():
        log.warning("%s: %s", found.root, line)


def _write(found: Dataset, records: Sequence[ImageRecord], classes: Sequence[str], root: Path, path: Path) -> Path:
    """Write the images of one split; a file with the same content stays as it is, and so does its cached index."""
    title = formats()[found.format].title
    values = coco_values(records, names_below(root, records), classes, f"read from {title}: {real_path(found.root)}")
    content = json.dumps(values, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
    if not (is_file(path) and read_file(path, DataError) == content):
        write_bytes(path, content)
    return path
