"""``tldet convert``: a dataset in another format."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.coco.class_files import read_class_names
from tldet.data.formats.prepare import check_files, complete
from tldet.data.formats.records import Dataset
from tldet.data.formats.registry import VocBoxes, formats
from tldet.data.formats.source import SourceOptions, read_source
from tldet.data.formats.writers.coco import write_coco
from tldet.data.formats.writers.layout import Written, require_names
from tldet.data.formats.writers.voc import write_voc
from tldet.data.formats.writers.yolo import write_yolo
from tldet.errors import ConfigError, DataError, OutputError
from tldet.system.inputs import exists, is_file, is_folder
from tldet.system.locks import is_unused, locked
from tldet.system.output import Replacement, make_folder, naming, write_json
from tldet.system.progress import progress_bars
from tldet.text import counted
from tldet.workflows.command_requests import CONVERT_TARGETS, ConvertRequest
from tldet.workflows.requests import takes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)
_REPORT = "convert_report.json"


@dataclass(frozen=True)
class ConvertReport:
    """Report of a conversion.

    Attributes:
        source: folder or file that was read.
        format: its format.
        to: the new format.
        details: decisions of the reader.
        classes: class names.
        images: number of images by split; "" for images without a stated split.
        read: number of objects that were read, without those left out on reading.
        written: number of objects that were written.
        masks: number of objects that were written with a mask.
        left_out: counts of objects and fields that were left out or changed on reading.
        dropped: counts of objects and fields that the new format cannot store.
        notes: the counts with the first locations, one line each.
    """

    source: str
    format: str
    to: str
    details: tuple[str, ...]
    classes: tuple[str, ...]
    images: dict[str, int]
    read: int
    written: int
    masks: int
    left_out: dict[str, int]
    dropped: dict[str, int]
    notes: tuple[str, ...]


@takes(ConvertRequest)
def convert(request: ConvertRequest) -> ConvertReport:
    """Convert a dataset into a new folder, and report what was kept, dropped and changed.

    Raises:
        TldetError: the source is wrong, or a file cannot be written.
    """
    if request.to not in CONVERT_TARGETS:
        raise ConfigError(f"--to must be one of {', '.join(CONVERT_TARGETS)}, not {request.to!r}")
    path, folder = Path(request.source), Path(request.out)
    if not exists(path):
        raise DataError(f"{path}: no such file or folder")
    _refuse_earlier(folder)
    with locked(folder), progress_bars(request.console) as progress:
        _refuse_earlier(folder)
        found = _read(request, folder / "frames")
        written = _write(found, request.to, folder, request.voc_boxes or "auto")
        _copy(written.images, progress, link=request.link)
        report = _report(path, found, written, request.to)
        write_json(folder / _REPORT, asdict(report), indent=2)
    _show(report, folder, request.console)
    return report


def _refuse_earlier(folder: Path) -> None:
    if is_file(folder) or (is_folder(folder) and not is_unused(folder)):
        what = "contains an earlier conversion" if is_file(folder / _REPORT) else "is not empty"
        raise OutputError(f"{folder}: {what}; choose another --out or remove it")


def _read(request: ConvertRequest, frames: Path) -> Dataset:
    images = None if request.images is None else Path(request.images)
    if images is not None and not exists(images):
        raise DataError(f"--images {images}: no such folder")
    options = SourceOptions(request.format, request.voc_boxes or "auto", request.classes)
    found = read_source(Path(request.source), options, images, frames=frames)
    complete(found, None if request.classes is None else read_class_names(Path(request.classes)), clip=False)
    check_files(found)
    return found


def _write(found: Dataset, to: str, out: Path, boxes: VocBoxes) -> Written:
    if to != "coco":
        require_names(found, to)
    make_folder(out)
    splits = found.splits()
    if to == "voc":
        return write_voc(splits, out, boxes)
    return {"coco": write_coco, "yolo": write_yolo}[to](found, splits, found.classes, out)


def _copy(images: Sequence[tuple[Path, Path]], progress: Progress, *, link: bool) -> None:
    for source, target in progress.track(images, description="linking images" if link else "copying images"):
        make_folder(target.parent)
        with naming(target):
            if link:
                target.symlink_to(source.resolve())
            else:
                with Replacement(target, sync=False) as copy:
                    shutil.copyfile(source, copy.name)


def _report(path: Path, found: Dataset, written: Written, to: str) -> ConvertReport:
    return ConvertReport(
        source=str(path),
        format=found.format,
        to=to,
        details=tuple(found.details),
        classes=tuple(found.classes),
        images={split or "": len(images) for split, images in found.splits().items()},
        read=sum(len(image.shapes) for image in found.images),
        written=written.boxes,
        masks=written.masks,
        left_out=found.tally.counts(),
        dropped=written.tally.counts(),
        notes=(*found.notes(), *found.relative(written.tally.notes())),
    )


def _show(report: ConvertReport, folder: Path, console: Console | None) -> None:
    title = formats()[report.format].title
    details = "".join(f"; {one}" for one in report.details)
    log.info("%s: format %s%s", report.source, title, details)
    for line in report.notes:
        log.warning("%s", line)
    images = ", ".join(f"{split or 'no split'} {count:,}" for split, count in report.images.items())
    masks = f", {report.masks:,} with a mask" if report.masks else ""
    kept = f"{report.written:,} of {counted(report.read, 'object')}{masks}"
    if console:
        classes = counted(len(report.classes), "class", "classes")
        console.print(f"{folder}: {formats()[report.to].title}; images: {images}; {kept}; {classes}", highlight=False)
