"""``tldet merge``: data sets with different label sets as one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tldet.data.formats.source import SourceOptions
from tldet.data.merge.classes import MergedClasses, merge_classes, read_merge_aliases
from tldet.data.merge.files import copy_image, copy_names, reference
from tldet.data.merge.inputs import MergeInput, find_inputs
from tldet.data.merge.join import Joined, alike, join
from tldet.data.merge.source import MergeSource, open_source
from tldet.data.merge.writing import write_joined
from tldet.data.split_names import SPLIT_NAMES
from tldet.errors import DataError
from tldet.system.inputs import is_file, is_folder
from tldet.system.locks import is_unused, locked
from tldet.system.output import make_folder, write_json
from tldet.workflows.merge.notes import class_notes, part_notes, shared_note
from tldet.workflows.merge.report import MergeReport, changed_ids, class_rows, input_row, part_row
from tldet.workflows.merge.tables import show_merge

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)
_REPORT = "merge_report.json"


def merge(
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    images: Sequence[str | Path] = (),
    format: str | None = None,
    voc_boxes: Literal["continuous", "inclusive"] | None = None,
    aliases: str | Path | None = None,
    copy: bool = False,
    console: Console | None = None,
) -> MergeReport:
    """Merge COCO data sets into a folder that ``tldet finetune --data`` takes.

    A folder's train, val and test parts stay apart (``train.json``, ``val.json``, ``test.json``); a JSON given by
    itself goes to ``train.json``. Classes are one by exact name or by an alias. An image says which of the merged
    classes are labeled on it (``labeled_category_ids``) where these are not all.

    Args:
        inputs: two or more annotation files or data folders, in any format.
        out: a new or empty folder.
        images: image folder of the JSON inputs: one for all or one for each; none looks around them.
        format: format of the inputs; None detects it.
        voc_boxes: meaning of the corners in Pascal VOC files; None detects it.
        aliases: JSON ``{"new name": ["old name", ...]}``.
        copy: copy the images into ``out``; without it they stay, and file names lead to them.
        console: shows progress and what became of everything.

    Raises:
        DataError: an input, an alias or a folder is wrong; nothing is written.
    """
    folder = Path(out)
    source = SourceOptions(format, voc_boxes or "auto")
    given = find_inputs([Path(path) for path in inputs], [Path(path) for path in images], source)
    _refuse_earlier(folder)
    with locked(folder), _progress(console) as progress:
        _refuse_earlier(folder)  # again: another merge may have ended just now
        try:
            report = _merged(given, folder, Path(aliases) if aliases else None, copy, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; remove {folder}, if it is there, and merge again") from None
    for one in given:
        log.info("%s: %s, images in %s", one.part, one.split.annotations, one.split.images)
    if console:
        show_merge(report, console)
    for note in report.notes:
        log.warning("%s", note)
    log.info("written: %s; tldet finetune --data %s takes it", folder, folder)
    return report


def _progress(console: Console | None) -> Progress:
    from rich.progress import Progress

    return Progress(console=console, disable=console is None, transient=True)


def _refuse_earlier(folder: Path) -> None:
    if is_file(folder) or (is_folder(folder) and not is_unused(folder)):
        what = "holds an earlier merge" if is_file(folder / _REPORT) else "is not empty"
        raise DataError(f"{folder}: {what}; choose another --out or remove it")


def _merged(
    given: Sequence[MergeInput], out: Path, aliases: Path | None, copy: bool, progress: Progress
) -> MergeReport:
    sources = [open_source(one.split) for one in progress.track(given, description="reading")]
    lists = [source.categories for source in sources]
    names = {record["name"]: None for records in lists for record in records}
    renamed = read_merge_aliases(aliases, list(names)) if aliases else {}
    classes = merge_classes(lists, renamed)
    parts = _join_parts(given, sources, classes, progress)
    files = _Files(make_folder(out), copy, progress)
    rows, notes = [], [*class_notes(sources, classes, renamed)]
    for one in progress.track(parts, description="writing"):
        path = out / f"{one.part}.json"
        differing = write_joined(path, one.joined, classes, files.names(one))
        rows.append(part_row(one.part, path, one.joined))
        notes += part_notes(rows[-1], one.joined, differing, classes.names)
    report = MergeReport(
        inputs=tuple(input_row(source, one.part) for source, one in zip(sources, given, strict=True)),
        parts=tuple(rows),
        classes=tuple(row for one in parts for row in class_rows(one.part, one.joined, classes)),
        changed_categories=tuple(changed_ids(sources, classes)),
        notes=(*notes, *_shared(parts)),
    )
    write_json(out / _REPORT, asdict(report), indent=2)
    return report


@dataclass(frozen=True)
class _Part:
    """What becomes one JSON: its inputs, and of every image record the first one anywhere that is the same."""

    part: str
    given: Sequence[MergeInput]
    joined: Joined
    same: NDArray[np.int64]


def _join_parts(
    given: Sequence[MergeInput], sources: Sequence[MergeSource], classes: MergedClasses, progress: Progress
) -> list[_Part]:
    same = alike(sources, partial(progress.track, description="comparing images"))
    parts = []
    for part in SPLIT_NAMES:
        numbers = [number for number, one in enumerate(given) if one.part == part]
        if numbers:
            ours = np.concatenate([same[n] for n in numbers])
            joined = join([sources[n] for n in numbers], [classes.tables[n] for n in numbers], ours)
            parts.append(_Part(part, [given[n] for n in numbers], joined, ours))
    return parts


def _shared(parts: Sequence[_Part]) -> Iterator[str]:
    for one, two in combinations(parts, 2):
        count = len(np.intersect1d(one.same, two.same))
        if count:
            yield shared_note(f"{one.part}.json", f"{two.part}.json", count)


class _Files:
    """Finds or makes the images of a merged data set."""

    def __init__(self, folder: Path, copy: bool, progress: Progress) -> None:
        self.folder, self.copy, self.progress = folder, copy, progress
        self.taken: set[str] = set()

    def names(self, one: _Part) -> list[str]:
        """File names of a part's images, seen from the folder."""
        paths = one.joined.paths()
        if not self.copy:
            return reference(paths, self.folder)
        records = [one.joined.record(record) for record in one.joined.firsts.tolist()]
        file_names = [one.joined.sources[number].file_names[place] for number, place in records]
        folders = [f"{one.part}/{one.given[number].label}" for number, _ in records]
        copies = copy_names(folders, file_names, self.taken)
        pairs = list(zip(paths, copies, strict=True))
        for path, name in self.progress.track(pairs, description="copying images"):
            copy_image(path, self.folder / name)
        return copies
