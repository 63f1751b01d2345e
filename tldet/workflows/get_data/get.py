"""``tldet data get``: download a dataset, unpack it and convert it to COCO JSON."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.data.index import AnnotationIndex
from tldet.errors import DataError, DownloadError, OutputError
from tldet.system.cache import cache_root, read_entry, write_entry
from tldet.system.downloads import DownloadLimits, Progress, download
from tldet.system.inputs import is_file, is_folder
from tldet.system.locks import is_unused, locked
from tldet.system.output import make_folder, naming, write_json
from tldet.system.progress import progress_bars
from tldet.system.unpacking import is_archive, unpack
from tldet.text import counted
from tldet.workflows.get_data.convert import Arranged, arrange
from tldet.workflows.get_data.request import DataGetRequest
from tldet.workflows.get_data.sources import DatasetSource, SourceFile, load_source
from tldet.workflows.requests import takes

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
RECEIPT_NAME, WORK = "dataset.json", ".download"  # in the output directory


@dataclass(frozen=True)
class GetReport:
    """A downloaded dataset.

    Attributes:
        name: name of the dataset.
        title: description in one line.
        homepage: URL of the publisher's page.
        license: license of annotations and images.
        files: URL and SHA-256 of each file, and the origin of the digest that it was compared with.
        images: number of images by split; "" for images without a split.
        objects: number of objects by split.
        classes: class names.
        notes: messages about dropped and changed annotations.
    """

    name: str
    title: str
    homepage: str
    license: str
    files: tuple[dict[str, str], ...]
    images: dict[str, int]
    objects: dict[str, int]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


@takes(DataGetRequest)
def get_data(request: DataGetRequest) -> GetReport:
    """Download a dataset, unpack it and convert it to COCO JSON; an interrupted download is resumed.

    Raises:
        TldetError: a file cannot be downloaded or unpacked, does not match its digest, or has invalid annotations.
    """
    source = load_source(request.name)
    out = Path(request.out) if request.out is not None else Path("data") / source.name
    _refuse_other(out)
    with locked(out):
        _refuse_other(out)
        _show_source(source, request.console)
        work = make_folder(out / WORK)
        files = tuple(_fetch(one, number, work, request.console) for number, one in enumerate(source.files))
        shutil.rmtree(out / "images", ignore_errors=True)  # of an interrupted call
        found = arrange(source, _unpacked(source, work), out)
        report = _report(source, files, found)
        write_json(out / RECEIPT_NAME, asdict(report), indent=2)
        shutil.rmtree(work / "files", ignore_errors=True)
        if not request.keep_archives:
            shutil.rmtree(work, ignore_errors=True)
    if request.console is not None:
        _show(report, out, request.console)
    return report


def _refuse_other(out: Path) -> None:
    """Reject a folder with anything but an interrupted download.

    Raises:
        OutputError: the folder contains other files.
    """
    if is_file(out / RECEIPT_NAME):
        raise OutputError(f"{out}: contains a downloaded dataset; choose another --out or remove it")
    if is_file(out) or (is_folder(out) and not is_folder(out / WORK) and not is_unused(out)):
        raise OutputError(f"{out}: is not empty; choose another --out")


def archive_path(file: SourceFile, number: int, work: Path) -> Path:
    """Return the path of a downloaded file."""
    return work / f"{number}_{file.name}"


def _fetch(file: SourceFile, number: int, work: Path, console: Console | None) -> dict[str, str]:
    """Download a file and compare it with its digest, or with that of its first download.

    Raises:
        DownloadError: the file cannot be downloaded, or its digest differs.
    """
    log.info("downloading %s", file.url)
    record = cache_root() / "digests" / f"{hashlib.sha256(file.url.encode()).hexdigest()[:32]}.json"
    earlier = _recorded(record)
    path = archive_path(file, number, work)
    try:
        with _progress(console, file.name) as progress:
            found = download(file.url, path, file.digest, limits=DownloadLimits(), progress=progress)
    except DownloadError as error:
        raise DownloadError(f"{file.url}: {error}") from None
    if not file.digest and earlier and earlier != found:
        path.unlink()
        raise DownloadError(
            f"{file.url}: its SHA-256 is {found}, but that of the first download was {earlier}; if the publisher has "
            f"changed the file, remove {record} and run the command again"
        )
    with contextlib.suppress(OutputError):
        write_entry(record, found)
    compared = file.digest_source if file.digest else "the first download" if earlier else ""
    origin = f"matches that of {compared}" if compared else "recorded for later downloads; the publisher states none"
    log.info("SHA-256 %s (%s)", found, origin)
    return {"url": file.url, "sha256": found, "compared_with": compared}


def _recorded(record: Path) -> str:
    if not is_file(record):
        return ""
    try:
        return str(read_entry(record))
    except DataError as error:
        raise DownloadError(f"{error}; remove it") from None


@contextlib.contextmanager
def _progress(console: Console | None, name: str) -> Iterator[Progress]:
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with progress_bars(console, *columns) as shown:
        task = shown.add_task(name, total=None)
        yield lambda received, total: shown.update(task, completed=received, total=total)


def _unpacked(source: DatasetSource, work: Path) -> Path:
    """Unpack all files into a new folder and return it."""
    folder = work / "files"
    with naming(folder):
        if folder.exists():
            shutil.rmtree(folder)  # of an interrupted call
    for number, file in enumerate(source.files):
        path, target = archive_path(file, number, work), folder / file.folder
        if not is_archive(file.name):
            make_folder(target)
            with naming(target / file.name):
                shutil.copyfile(path, target / file.name)
            continue
        log.info("unpacking %s", file.name)
        part = folder / f".{number}"  # so that an archive cannot overwrite files of another one
        unpack(path, part)
        _merge(part, make_folder(target), file.name)
    return folder


def _merge(part: Path, target: Path, name: str) -> None:
    """Move the content of a folder into another one.

    Raises:
        DownloadError: a file exists in both.
    """
    for path in sorted(part.iterdir()):
        there = target / path.name
        if path.is_dir() and there.is_dir():
            _merge(path, there, name)
        elif there.exists():
            raise DownloadError(f"{name}: contains {there.name}, which another archive of the dataset also contains")
        else:
            with naming(there):
                path.rename(there)
    part.rmdir()


def _report(source: DatasetSource, files: tuple[dict[str, str], ...], found: Arranged) -> GetReport:
    """Read the written annotations as in training, and describe the dataset."""
    indices = {split or "": AnnotationIndex.load(path) for split, path in found.annotations.items()}
    return GetReport(
        source.name,
        source.title,
        source.homepage,
        source.license,
        files,
        {split: len(index) for split, index in indices.items()},
        {split: len(index.boxes) for split, index in indices.items()},
        next(iter(indices.values())).class_names,
        found.notes,
    )


def _show_source(source: DatasetSource, console: Console | None) -> None:
    if console is not None:
        console.print(source.title, markup=False, highlight=False)
        console.print(f"license: {source.license}", markup=False, highlight=False)
        if source.homepage:
            console.print(f"homepage: {source.homepage}", markup=False, highlight=False)


def _show(report: GetReport, out: Path, console: Console) -> None:
    for split, images in report.images.items():
        line = f"{split or 'images'}: {counted(images, 'image')}, {counted(report.objects[split], 'object')}"
        console.print(line, markup=False, highlight=False)
    lines = f"saved to {out} ({counted(len(report.classes), 'class', 'classes')})", "next:"
    train = shlex.join(["tldet", "finetune", "--data", str(out), "--out", f"runs/{report.name}"])
    console.print(*lines, f"  {train}", sep="\n", markup=False, highlight=False)
