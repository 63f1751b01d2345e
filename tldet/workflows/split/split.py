"""``tldet split``: split a dataset into training, validation and test splits or folds, without leaks between them."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.raw import read_repaired
from tldet.data.file_names import resolve_names
from tldet.data.folds import divide, join_groups
from tldet.data.formats.source import is_foreign
from tldet.data.image_folders import find_images
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import AnnotationFiles, Split
from tldet.data.merge.files import reference
from tldet.data.similar import Pair, find_pairs, read_thumbnails
from tldet.data.split_paths import annotation_split
from tldet.errors import ConfigError, DataError, OutputError
from tldet.system.inputs import exists, is_file, is_folder
from tldet.system.locks import is_unused, locked
from tldet.system.output import make_folder, write_json
from tldet.system.progress import progress_bars
from tldet.text import counted
from tldet.workflows.requests import takes
from tldet.workflows.split.request import SplitRequest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)
SPLIT_REPORT = "split_report.json"  # in the output directory
_HOW = "--group-by must be folder, field:NAME or name:REGEX"


@dataclass(frozen=True)
class Part:
    """One of the written annotation files.

    Attributes:
        file: the annotation file.
        images: number of images.
        objects: number of objects of each class, without crowd regions.
    """

    file: str
    images: int
    objects: dict[str, int]


@dataclass(frozen=True)
class SplitReport:
    """Result of a split.

    Attributes:
        data: the dataset.
        source: COCO JSON with its annotations.
        seed: random seed.
        parts: the written annotation files.
        groups: number of groups of images that are not divided; an image without a group counts as one.
        copies: number of pairs of identical or nearly identical images.
        leaks: number of these pairs whose images are in different splits; always 0.
    """

    data: str
    source: str
    seed: int
    parts: tuple[Part, ...]
    groups: int
    copies: int
    leaks: int


@takes(SplitRequest)
def split(request: SplitRequest) -> SplitReport:
    """Split a dataset into training, validation and test annotations, or into folds for cross-validation.

    Each split gets its fraction of the images of every class. Identical and nearly identical images are put in the same
    split, and so are the images of a group. Images are not copied; the new annotation files refer to the original ones.

    Raises:
        TldetError: the annotations are invalid, or cannot be divided.
    """
    shares = shares_of(request)
    folder = Path(request.out)
    source = _source(request)
    _refuse_earlier(folder)
    with locked(folder), progress_bars(request.console) as progress:
        _refuse_earlier(folder)
        report = _divided(request, source, shares, folder, progress)
        write_json(folder / SPLIT_REPORT, asdict(report), indent=2)
    _show(report, request.console)
    log.info("saved to %s", folder)
    return report


def shares_of(request: SplitRequest) -> dict[str, float]:
    """Return the fraction of each split.

    Raises:
        ConfigError: no images are left for training, or options cannot be combined.
    """
    if request.folds is not None:
        if request.test is not None:
            raise ConfigError("--folds and --test cannot be combined")
        return {f"fold{number}": 1 / request.folds for number in range(1, request.folds + 1)}
    test = request.test or 0.0
    if request.val + test >= 1:
        raise ConfigError(f"--val {request.val:g} and --test {test:g} leave no images for training")
    shares = {"train": 1 - request.val - test, "val": request.val, "test": test}
    return {name: share for name, share in shares.items() if share}


def _source(request: SplitRequest) -> Split:
    """Find the annotations to split and their images."""
    data, images = Path(request.data), None if request.images is None else Path(request.images)
    if not exists(data):
        raise DataError(f"{data}: no such file or folder")
    if images is not None and not exists(images):
        raise DataError(f"--images {images}: no such folder")
    options = request.source_options()
    if is_file(data) or is_foreign(data, options):
        return annotation_split(data, images, options)
    files = AnnotationFiles.find(data).needed()
    if unusable := next((one for one in files if not one.usable), None):
        raise DataError(f"{unusable.path}: {unusable.content.problem}; repair or remove it, or split one file")
    usable = [one.path for one in files]
    if len(usable) != 1:
        named = ", ".join(str(path.relative_to(data)) for path in usable) or "no annotation file"
        raise DataError(f"{data}: contains {named}; split one file, or merge them with tldet merge")
    return Split(usable[0], images or find_images(usable[0], data))


def _refuse_earlier(folder: Path) -> None:
    if is_file(folder) or (is_folder(folder) and not is_unused(folder)):
        what = "contains an earlier split" if is_file(folder / SPLIT_REPORT) else "is not empty"
        raise OutputError(f"{folder}: {what}; choose another --out or remove it")


def _divided(
    request: SplitRequest, source: Split, shares: Mapping[str, float], folder: Path, progress: Progress
) -> SplitReport:
    index = AnnotationIndex.load(source.annotations)
    whole = read_repaired(source.annotations)
    names = resolve_names(source.images, index.file_names, source.annotations)
    paths = [source.images / name for name in names]
    pairs = _copies(paths, progress)
    keys = [_keys(request.group_by, whole["images"], names)] if request.group_by else []
    groups = join_groups(len(paths), keys, [(one.first, one.second) for one in pairs])
    part = divide(index, groups, list(shares.values()), request.seed)
    leaks = sum(int(part[one.first]) != int(part[one.second]) for one in pairs)
    parts = [_write(whole, rows, paths, folder / name) for name, rows in _files(list(shares), part, request.folds)]
    count = int(groups.max(initial=-1)) + 1
    return SplitReport(str(request.data), str(source.annotations), request.seed, tuple(parts), count, len(pairs), leaks)


def _copies(paths: Sequence[Path], progress: Progress) -> list[Pair]:
    found = read_thumbnails(paths, lambda rows: progress.track(rows, description="reading images"))
    if len(found.usable) and not found.usable.any():
        raise DataError(f"{paths[0]}: none of {counted(len(paths), 'image')} can be read; use --images")
    return find_pairs(found, lambda rows: progress.track(rows, description="comparing images"))


def _keys(group_by: str, images: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Hashable]:
    """Return the group key of each image; an image without a key forms its own group.

    Raises:
        ConfigError: ``group_by`` has another form, or no image has a key.
    """
    kind, _, value = group_by.partition(":")
    if group_by == "folder":
        return [str(PurePosixPath(name).parent) for name in names]
    if kind not in ("field", "name") or not value:
        raise ConfigError(f"{_HOW}, not {group_by!r}")
    found: list[Any] = [image.get(value) for image in images] if kind == "field" else _matches(value, names)
    if all(one is None for one in found):
        what = "has this field" if kind == "field" else "matches"
        raise ConfigError(f"--group-by {group_by}: no image {what}")
    return [("image", position) if one is None else ("key", str(one)) for position, one in enumerate(found)]


def _matches(pattern: str, names: Sequence[str]) -> list[str | None]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group-by name:{pattern}: invalid regular expression ({error})") from None
    found = [compiled.search(PurePosixPath(name).name) for name in names]
    return [None if one is None else one[0] for one in found]


def _files(names: Sequence[str], part: NDArray[np.int64], folds: int | None) -> list[tuple[str, NDArray[np.int64]]]:
    """Return the name of each file and the positions of its images."""
    if folds is None:
        return [(f"{name}.json", np.flatnonzero(part == number)) for number, name in enumerate(names)]
    found = []
    for number, name in enumerate(names):
        found += [(f"{name}/train.json", np.flatnonzero(part != number))]
        found += [(f"{name}/val.json", np.flatnonzero(part == number))]
    return found


def _write(whole: Mapping[str, Any], rows: NDArray[np.int64], paths: Sequence[Path], path: Path) -> Part:
    """Write some images with their annotations; all other fields are kept."""
    make_folder(path.parent)
    chosen = rows.tolist()
    names = reference([paths[row] for row in chosen], path.parent)
    images = [{**whole["images"][row], "file_name": name} for row, name in zip(chosen, names, strict=True)]
    ids = {image["id"] for image in images}
    annotations = [one for one in whole["annotations"] if one["image_id"] in ids]
    write_json(path, {**whole, "images": images, "annotations": annotations})
    objects = {one["id"]: 0 for one in whole["categories"]}
    for one in annotations:
        objects[one["category_id"]] += not one.get("iscrowd")
    counts = {str(one["name"]): objects[one["id"]] for one in whole["categories"]}
    return Part(str(path), len(images), counts)


def _show(report: SplitReport, console: Console | None) -> None:
    together = f"{counted(report.copies, 'pair')} of identical or nearly identical images kept together"
    log.info("%s: %s of images; %s", report.source, counted(report.groups, "independent group"), together)
    if console is None:
        return
    for part in report.parts:
        objects = sum(part.objects.values())
        absent = [name for name, count in part.objects.items() if not count and _somewhere(report, name)]
        note = f"; no objects of {', '.join(absent[:5])}" + (", ..." if len(absent) > 5 else "") if absent else ""
        text = f"{part.file}: {counted(part.images, 'image')}, {counted(objects, 'object')}{note}"
        console.print(text, markup=False, highlight=False)


def _somewhere(report: SplitReport, name: str) -> bool:
    return any(part.objects[name] for part in report.parts)
