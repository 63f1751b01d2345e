"""Reading of a dataset for checks: splits with their records and image folders, and findings on what is unreadable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tldet.data.checks.findings import CODES, Finding
from tldet.data.checks.read import read_json, read_other_format
from tldet.data.checks.records import Records
from tldet.data.file_names import resolve_names
from tldet.data.formats.detect import detect_format
from tldet.data.formats.registry import formats
from tldet.data.formats.source import read_source
from tldet.data.formats.tree import Tree
from tldet.data.image_folders import find_images
from tldet.data.layouts import AnnotationFiles
from tldet.data.split_names import split_of
from tldet.errors import DataError
from tldet.system.inputs import exists, is_file, is_folder
from tldet.workflows.check.request import CheckRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckSource:
    """A dataset to check.

    Attributes:
        format: name of its format.
        files: COCO JSON files by split; empty for other formats.
        splits: the usable records.
        findings: problems of the unusable records.
    """

    format: str
    files: dict[Path, str]
    splits: list[Records]
    findings: list[Finding]


def open_check_source(request: CheckRequest) -> CheckSource:
    """Read a dataset in any format.

    Raises:
        DataError: the path does not exist, or contains no annotations.
    """
    data, images = Path(request.data), None if request.images is None else Path(request.images)
    if not exists(data):
        raise DataError(f"{data}: no such file or folder")
    if images is not None and not is_folder(images):
        raise DataError(f"--images {images}: no such folder")
    files = _json_files(data, request.format)
    if files is None:
        return _foreign(data, images, request)
    source = CheckSource("coco", files, [], [])
    for path, split in files.items():
        records, findings = open_json(path, split, data if is_folder(data) else path.parent, images)
        source.findings.extend(findings)
        source.splits.extend([] if records is None else [records])
    return source


def _json_files(data: Path, chosen: str | None) -> dict[Path, str] | None:
    """Return the COCO JSON files of a source with their splits; None for another format."""
    if chosen not in (None, "coco"):
        return None
    if is_file(data):
        other = None if data.suffix.lower() == ".json" and chosen == "coco" else _format_of(data)
        return {data: split_of(data, data.parent) or ""} if other in (None, "coco") else None
    found = _format_of(data) if chosen is None else chosen
    if found not in (None, "coco"):
        return None
    files = AnnotationFiles.find(data)
    usable = files.needed() or files.candidates
    if not usable:
        raise DataError(f"{data}: contains no annotations in a known format; see docs/formats.md")
    return {one.path: one.split or "" for one in usable}


def _format_of(data: Path) -> str | None:
    found = detect_format(Tree(data))
    return None if found is None else found[0].name


def open_json(
    path: Path, split: str, root: Path, images: Path | None, values: Any = None
) -> tuple[Records | None, list[Finding]]:
    """Read a COCO JSON and find its images.

    Args:
        path: the file.
        split: its split.
        root: folder that is searched for images.
        images: the image folder; None to search for it.
        values: parsed content to use instead of that of the file.
    """
    records, findings = read_json(path, split, values)
    if records is None:
        return None, findings
    names = [name for name in records.file_names if name]
    try:
        folder = images or find_images(path, root, names=names) if names else None
    except DataError as error:
        text = str(error).removeprefix(f"{path}: ")
        return records, [*findings, Finding("images-not-found", CODES["images-not-found"][0], str(path), text)]
    if folder is None:
        return records, findings
    disk = resolve_names(folder, records.file_names, path)
    return replace(records, folder=folder, disk_names=disk), findings


def _foreign(data: Path, images: Path | None, request: CheckRequest) -> CheckSource:
    try:
        dataset = read_source(data, request.source_options(), images)
    except DataError as error:
        finding = Finding("file-unreadable", CODES["file-unreadable"][0], str(data), str(error))
        return CheckSource(request.format or "unknown", {}, [], [finding])
    for line in dataset.details:
        log.info("%s: %s", formats()[dataset.format].title, line)
    splits, findings = read_other_format(dataset)
    if not splits:
        findings.append(Finding("no-images", CODES["no-images"][0], str(data), "no images"))
    return CheckSource(dataset.format, {}, splits, findings)


def summary(splits: Sequence[Records]) -> dict[str, dict[str, int]]:
    """Return the numbers of images, objects and classes of each split."""
    return {
        records.split or records.file.name: {
            "images": len(records.image_ids),
            "objects": len(records.boxes),
            "classes": len(records.class_names),
        }
        for records in splits
    }
