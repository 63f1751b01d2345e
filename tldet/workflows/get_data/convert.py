"""Conversion of a downloaded dataset to ``annotations/instances_SPLIT.json`` and ``images/SPLIT``."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tldet.coco.raw import read_part_texts
from tldet.coco.reader import read_coco
from tldet.data.formats.prepare import check_files, complete
from tldet.data.formats.records import Dataset, ImageRecord
from tldet.data.formats.source import SourceOptions, read_source
from tldet.data.formats.writers.coco import write_coco
from tldet.errors import DataError
from tldet.system.inputs import exists, is_folder, read_file
from tldet.system.output import make_folder, naming, write_bytes
from tldet.text import counted
from tldet.workflows.get_data.sources import DatasetSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arranged:
    """Annotation files of a dataset.

    Attributes:
        annotations: COCO JSON files by split; None for images without a split.
        notes: messages about dropped and changed annotations.
    """

    annotations: dict[str | None, Path]
    notes: tuple[str, ...] = ()


def arrange(source: DatasetSource, files: Path, out: Path) -> Arranged:
    """Convert unpacked files to COCO JSON and move the images to the output directory.

    COCO JSON with image folders is not converted: the files are moved to ``annotations`` and folders of the same names.

    Args:
        source: the source.
        files: folder of the unpacked files.
        out: output directory.

    Raises:
        DataError: annotations are invalid, an image is missing, or its size differs from the annotations.
    """
    for path in (*source.annotations.values(), *source.images.values()):
        if not exists(files / path):
            raise DataError(f"{source.name}: the downloaded files do not contain {path}")
    if source.format == "coco" and source.images:
        return _coco(source, files, out)
    found = [(split, _read(source, files, split)) for split in source.annotations]
    classes = list(dict.fromkeys(name for _, one in found for name in one.classes))
    splits: dict[str | None, Sequence[ImageRecord]] = {}
    for split, one in found:
        splits |= one.splits() if split is None else {split: one.sorted()}
    written = write_coco(found[0][1], splits, classes, out)
    for before, after in written.images:
        _move(before, after)
    notes = tuple(line for _, one in found for line in one.notes()) + tuple(written.tally.notes())
    for line in notes:
        log.warning("%s", line)
    return Arranged({split: _json(out, split) for split in splits}, notes)


def _json(out: Path, split: str | None) -> Path:
    return out / "annotations" / f"instances{f'_{split}' if split else ''}.json"


def _read(source: DatasetSource, files: Path, split: str | None) -> Dataset:
    """Read the annotations of a split, with the classes renamed, and check them."""
    images = source.images.get(split)
    options = SourceOptions(source.format, source.voc_boxes)
    found = read_source(files / source.annotations[split], options, None if images is None else files / images)
    for image in found.images:
        for shape in image.shapes:
            shape.label = source.rename.get(shape.label, shape.label)
    found.classes = list(dict.fromkeys(source.rename.get(name, name) for name in found.classes))
    complete(found)
    check_files(found)
    return found


def _move(before: Path, after: Path) -> None:
    make_folder(after.parent)
    with naming(after):
        before.replace(after)


def _coco(source: DatasetSource, files: Path, out: Path) -> Arranged:
    """Check that all images of a COCO JSON exist, and move the JSON and the image folders."""
    notes: list[str] = []
    written: dict[str | None, Path] = {}
    for split, name in source.annotations.items():
        folder = files / source.images[split]
        if not is_folder(folder):
            raise DataError(f"{source.name}: the downloaded files do not contain the folder {source.images[split]}")
        present = {path.name for path in folder.iterdir()}
        path = files / name
        if source.only_present:
            content, left_out = restricted(path, present, name)
            if left_out:
                notes.append(f"{split}: {counted(left_out, 'image')} of {name} not downloaded and left out")
        else:
            content = read_file(path, DataError)
            _check_present(path, present, name)
        shutil.rmtree(out / folder.name, ignore_errors=True)  # of an interrupted call
        _move(folder, out / folder.name)
        written[split] = out / "annotations" / Path(name).name
        write_bytes(written[split], content)
    for line in notes:
        log.info("%s", line)
    return Arranged(written, tuple(notes))


def _check_present(path: Path, present: Collection[str], name: str) -> None:
    missing = [image.file_name for image in read_coco(path, name).images if image.file_name not in present]
    if missing:
        raise DataError(f"{name}: {counted(len(missing), 'image')} missing, the first is {missing[0]}")


def restricted(path: Path, present: Collection[str], name: str) -> tuple[bytes, int]:
    """Remove images that are not present, and their objects, from a COCO JSON.

    All other values are kept byte by byte.

    Args:
        path: the JSON.
        present: file names of the images that exist.
        name: name in messages.

    Returns:
        The new content and the number of removed images.

    Raises:
        DataError: the content is not COCO JSON, or no image is present.
    """
    part, left_out = read_part_texts(path, name, lambda image: image.file_name in present)
    if not part["images"]:
        raise DataError(f"{name}: none of its images was downloaded")
    return msgspec.json.encode(part), left_out
