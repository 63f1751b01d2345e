"""``tldet merge``: merge datasets with different classes into one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tldet.data.formats.source import SourceOptions
from tldet.data.merge.classes import MergedClasses, merge_classes, read_merge_aliases
from tldet.data.merge.files import copy_image, copy_names, reference
from tldet.data.merge.inputs import MergeInput, find_inputs
from tldet.data.merge.join import Joined, alike, join
from tldet.data.merge.source import MergeSource, open_merge_source
from tldet.data.merge.writing import write_joined
from tldet.data.split_names import SPLIT_NAMES
from tldet.errors import DataError
from tldet.system.inputs import is_file, is_folder
from tldet.system.locks import is_unused, locked
from tldet.system.output import make_folder, write_json
from tldet.system.progress import progress_bars
from tldet.workflows.merge.notes import class_notes, shared_note, split_notes
from tldet.workflows.merge.report import MergeReport, changed_ids, class_rows, input_row, split_row
from tldet.workflows.merge.request import MergeRequest
from tldet.workflows.merge.tables import show_merge
from tldet.workflows.requests import takes

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger(__name__)
_REPORT = "merge_report.json"


@takes(MergeRequest)
def merge(request: MergeRequest) -> MergeReport:
    """Merge datasets into a folder for ``tldet finetune --data``.

    Train, val and test splits of a folder stay separate (``train.json``, ``val.json``, ``test.json``); a single file
    becomes part of ``train.json``. Classes are merged by exact name or by alias. Each image records which classes are
    annotated on it (``labeled_category_ids``) unless all are.

    Raises:
        DataError: an input, an alias or a folder is wrong; nothing is written.
    """
    folder, console = Path(request.out), request.console
    source = SourceOptions(request.format, request.voc_boxes or "auto")
    given = find_inputs([Path(path) for path in request.inputs], [Path(path) for path in request.images], source)
    _refuse_earlier(folder)
    with locked(folder), progress_bars(console) as progress:
        _refuse_earlier(folder)  # again: another merge may have ended just now
        aliases = Path(request.aliases) if request.aliases else None
        try:
            report = _merged(given, folder, aliases, request.copy, progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; remove {folder} if it exists, and merge again") from None
    for one in given:
        log.info("%s: %s, images in %s", one.part, one.split.annotations, one.split.images)
    if console:
        show_merge(report, console)
    for note in report.notes:
        log.warning("%s", note)
    log.info("saved to %s; train with tldet finetune --data %s", folder, folder)
    return report


def _refuse_earlier(folder: Path) -> None:
    if is_file(folder) or (is_folder(folder) and not is_unused(folder)):
        what = "contains an earlier merge" if is_file(folder / _REPORT) else "is not empty"
        raise DataError(f"{folder}: {what}; choose another --out or remove it")


def _merged(
    given: Sequence[MergeInput], out: Path, aliases: Path | None, copy: bool, progress: Progress
) -> MergeReport:
    sources = [open_merge_source(one.split) for one in progress.track(given, description="reading")]
    lists = [source.categories for source in sources]
    names = {record["name"]: None for records in lists for record in records}
    renamed = read_merge_aliases(aliases, list(names)) if aliases else {}
    classes = merge_classes(lists, renamed)
    splits = _join_splits(given, sources, classes, progress)
    files = _Files(make_folder(out), copy, progress)
    rows, notes = [], [*class_notes(sources, classes, renamed)]
    for one in progress.track(splits, description="writing"):
        path = out / f"{one.split}.json"
        differing = write_joined(path, one.joined, classes, files.names(one))
        rows.append(split_row(one.split, path, one.joined))
        notes += split_notes(rows[-1], one.joined, differing, classes.names)
    report = MergeReport(
        inputs=tuple(input_row(source, one.part) for source, one in zip(sources, given, strict=True)),
        splits=tuple(rows),
        classes=tuple(row for one in splits for row in class_rows(one.split, one.joined, classes)),
        changed_categories=tuple(changed_ids(sources, classes)),
        notes=(*notes, *_shared(splits)),
    )
    write_json(out / _REPORT, asdict(report), indent=2)
    return report


@dataclass(frozen=True)
class _Split:
    """An output JSON: its inputs, its joined records, and for each image record the first record of the same image."""

    split: str
    given: Sequence[MergeInput]
    joined: Joined
    same: NDArray[np.int64]


def _join_splits(
    given: Sequence[MergeInput], sources: Sequence[MergeSource], classes: MergedClasses, progress: Progress
) -> list[_Split]:
    same = alike(sources, partial(progress.track, description="comparing images"))
    splits = []
    for split in SPLIT_NAMES:
        numbers = [number for number, one in enumerate(given) if one.part == split]
        if numbers:
            ours = np.concatenate([same[n] for n in numbers])
            joined = join([sources[n] for n in numbers], [classes.tables[n] for n in numbers], ours)
            splits.append(_Split(split, [given[n] for n in numbers], joined, ours))
    return splits


def _shared(splits: Sequence[_Split]) -> Iterator[str]:
    for one, two in combinations(splits, 2):
        count = len(np.intersect1d(one.same, two.same))
        if count:
            yield shared_note(f"{one.split}.json", f"{two.split}.json", count)


class _Files:
    """Image files of a merged dataset, referred to or copied."""

    def __init__(self, folder: Path, copy: bool, progress: Progress) -> None:
        self.folder, self.copy, self.progress = folder, copy, progress
        self.taken: set[str] = set()

    def names(self, one: _Split) -> list[str]:
        """Return the file names of the images of a split, relative to the folder."""
        paths = one.joined.paths()
        if not self.copy:
            return reference(paths, self.folder)
        records = [one.joined.record(record) for record in one.joined.firsts.tolist()]
        file_names = [one.joined.sources[number].file_names[row] for number, row in records]
        folders = [f"{one.split}/{one.given[number].label}" for number, _ in records]
        copies = copy_names(folders, file_names, self.taken)
        pairs = list(zip(paths, copies, strict=True))
        for path, name in self.progress.track(pairs, description="copying images"):
            copy_image(path, self.folder / name)
        return copies
