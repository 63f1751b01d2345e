"""``tldet convert``: a dataset in another format."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tldet.data.formats.prepare import check_files, prepare, read_classes
from tldet.data.formats.records import Dataset
from tldet.data.formats.registry import VocBoxes, formats
from tldet.data.formats.source import SourceOptions, read_source
from tldet.data.formats.writers.coco import write_coco
from tldet.data.formats.writers.layout import Written
from tldet.data.formats.writers.voc import write_voc
from tldet.data.formats.writers.yolo import write_yolo
from tldet.errors import ConfigError, DataError, OutputError
from tldet.system.inputs import exists, is_file, is_folder
from tldet.system.locks import is_unused, locked
from tldet.system.output import Replacement, make_folder, naming, write_json
from tldet.text import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)
TARGETS = ("coco", "yolo", "voc")
_REPORT = "convert_report.json"


@dataclass(frozen=True)
class ConvertReport:
    """What became of a dataset.

    Attributes:
        source: folder or file that was read.
        format: its format.
        to: the new format.
        details: decisions of the reader.
        classes: class names.
        images: number of images by split; "" for images of no stated split.
        read: number of objects that were read, without those left out on reading.
        written: number of objects that were written.
        masks: number of objects that were written with a mask.
        left_out: counts of what was left out or changed on reading.
        dropped: counts of what the new format cannot hold.
        notes: the counts with the first places, one line each.
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


def convert(
    source: str | Path,
    *,
    to: Literal["coco", "yolo", "voc"],
    out: str | Path,
    format: str | None = None,
    voc_boxes: VocBoxes | None = None,
    images: str | Path | None = None,
    classes: str | Path | None = None,
    link: bool = False,
    console: Console | None = None,
) -> ConvertReport:
    """Convert a dataset into a new folder, and report what was kept, dropped and changed.

    Args:
        source: data folder or annotation file in any format.
        to: the new format.
        out: a new or empty folder.
        format: format of the source; None detects it.
        voc_boxes: meaning of the corners in Pascal VOC files that are read (None: detected) or written (None:
            continuous).
        images: image folder; searched by default.
        classes: file with the class names to keep, one per line, in order.
        link: link to the images instead of copying them.
        console: shows progress and the report.

    Raises:
        TldetError: the source is wrong, or a file cannot be written.
    """
    if to not in TARGETS:
        raise ConfigError(f"--to must be one of {', '.join(TARGETS)}, not {to!r}")
    path, folder = Path(source), Path(out)
    if not exists(path):
        raise DataError(f"{path}: no such file or folder")
    _refuse_earlier(folder)
    with locked(folder), _progress(console) as progress:
        _refuse_earlier(folder)
        options = SourceOptions(format, voc_boxes or "auto", classes)
        found = _read(path, options, None if images is None else Path(images), folder / "frames")
        written = _write(found, to, folder, voc_boxes or "auto")
        _copy(written.images, progress, link=link)
        report = _report(path, found, written, to)
        write_json(folder / _REPORT, asdict(report), indent=2)
    _show(report, folder, console)
    return report


def _refuse_earlier(folder: Path) -> None:
    if is_file(folder) or (is_folder(folder) and not is_unused(folder)):
        what = "holds an earlier conversion" if is_file(folder / _REPORT) else "is not empty"
        raise OutputError(f"{folder}: {what}; choose another --out or remove it")


def _progress(console: Console | None) -> Progress:
    from rich.progress import Progress

    return Progress(console=console, disable=console is None, transient=True)


def _read(path: Path, options: SourceOptions, images: Path | None, frames: Path) -> Dataset:
    if images is not None and not exists(images):
        raise DataError(f"--images {images}: no such folder")
    found = read_source(path, options, images, frames=frames)
    prepare(found, None if options.classes is None else read_classes(Path(options.classes)), clip=False)
    check_files(found)
    return found


def _write(found: Dataset, to: str, out: Path, boxes: VocBoxes) -> Written:
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
