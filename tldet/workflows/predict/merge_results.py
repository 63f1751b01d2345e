"""``tldet merge-results``: merge the JSON Lines files of shards, and convert them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tldet.errors import DataError
from tldet.system.output import replacing
from tldet.text import are, counted
from tldet.workflows.predict.formats import require_parquet, write_all
from tldet.workflows.predict.jsonl import WHOLE, Scan, encoded, read_lines, scan_results
from tldet.workflows.predict.outputs import OutputPaths
from tldet.workflows.predict.request import MergeResultsRequest
from tldet.workflows.requests import takes

log = logging.getLogger(__name__)
_OWN = ("shard", "inputs", "tldet", "precision")  # settings in which shards may differ


@dataclass(frozen=True)
class MergedResults:
    """Counts of merged results.

    Attributes:
        images: number of images.
        frames: number of frames of videos.
        failed: error of each input that could not be read, by path.
        missing: number of inputs without a result.
        repeated: number of duplicate results, which occur in several files.
    """

    images: int
    frames: int
    failed: dict[str, str]
    missing: int
    repeated: int

    def describe(self) -> str:
        """Describe the results in one line."""
        parts = [counted(self.images, "image")] if self.images or not self.frames else []
        parts += [counted(self.frames, "frame")] if self.frames else []
        parts += [f"{counted(len(self.failed), 'input')} could not be read"] if self.failed else []
        parts += [f"{counted(self.missing, 'input')} missing"] if self.missing else []
        parts += [f"{counted(self.repeated, 'duplicate result')} dropped"] if self.repeated else []
        return ", ".join(parts)


@takes(MergeResultsRequest)
def merge_results(request: MergeResultsRequest) -> MergedResults:
    """Merge the JSON Lines files of the shards of a prediction run in the order of the inputs, and convert them.

    Raises:
        DataError: a file was not written by ``tldet predict --jsonl``, files belong to different runs, shards or inputs
            are missing, or an output exists already or cannot be written.
    """
    paths = OutputPaths.of(request)
    if not paths.given():
        raise DataError("no output: use --json, --coco, --csv, --parquet or --jsonl")
    require_parquet(paths.parquet)
    paths.check([], request.given_results, overwrite=request.overwrite)
    paths.make_folders()
    scans = [_scanned(path) for path in request.given_results]
    problems = _problems(scans)
    if problems and not request.partial:
        raise DataError(f"{problems[0]}; --partial merges the existing results")
    for problem in problems:
        log.warning("%s", problem)
    categories = {one["id"]: one["name"] for one in scans[0].run["categories"]}
    if paths.jsonl:
        _write_jsonl(paths.jsonl, scans)
    write_all(paths, partial(read_lines, scans), categories)
    merged = _counts(scans)
    if request.console:
        written = ", ".join(str(path) for path in paths.given().values())
        request.console.print(f"{merged.describe()}; saved to {written}", markup=False, highlight=False)
    return merged


def _scanned(path: Path) -> Scan:
    found = scan_results(path)
    if not found.run:
        raise DataError(f"{path}: is empty; run this shard again")
    if found.torn:
        log.warning("%s: incomplete last line ignored (%s)", path, counted(found.torn, "byte"))
    return found


def _problems(scans: Sequence[Scan]) -> list[str]:
    """Return messages about missing shards and inputs.

    Raises:
        DataError: the files belong to different runs.
    """
    first = scans[0]
    for one in scans[1:]:
        different = [name for name in first.run if name not in _OWN and one.run.get(name) != first.run[name]]
        if different or _count(one) != _count(first):
            name = different[0] if different else "number of shards"
            raise DataError(
                f"{one.path}: belongs to another run than {first.path} (different {name}); merge files of one run only"
            )
    if len({one.run["precision"] for one in scans}) > 1:
        log.warning("the shards were predicted in different precisions; use the same --precision for all shards")
    given = {int(str(one.run["shard"]).partition("/")[0]) for one in scans}
    missing = [str(number) for number in range(1, _count(first) + 1) if number not in given]
    problems = [f"shard {', '.join(missing)} of {_count(first)} {are(len(missing))} missing"] if missing else []
    for one in scans:
        if left := _left(one):
            problems.append(
                f"{one.path}: {left:,} of {counted(one.run['inputs'], 'input')} not predicted yet; run tldet predict "
                "--resume for this shard"
            )
    return problems


def _count(one: Scan) -> int:
    return int(str(one.run["shard"]).partition("/")[2])


def _left(one: Scan) -> int:
    """Return the number of inputs without a result."""
    return max(0, int(one.run["inputs"]) - len(one.done.keys() | one.failed.keys()))


def _counts(scans: Sequence[Scan]) -> MergedResults:
    keys = [key for one in scans for key in one.lines]
    distinct = set(keys)
    images = sum(frame == WHOLE for _, frame in distinct)
    done = {path for one in scans for path in one.done}
    failed = {path: reason for one in scans for path, reason in one.failed.items() if path not in done}
    missing = sum(map(_left, scans))
    return MergedResults(images, len(distinct) - images, failed, missing, len(keys) - len(distinct))


def _write_jsonl(path: Path, scans: Sequence[Scan]) -> None:
    """Write one JSON Lines file, like that of a run without shards."""
    run: dict[str, Any] = {**scans[0].run, "shard": "1/1", "inputs": sum(int(one.run["inputs"]) for one in scans)}
    ends = [{"path": p, "frames": n} for one in scans for p, n in one.done.items() if (p, WHOLE) not in one.lines]
    errors = [{"path": p, "error": reason} for p, reason in _counts(scans).failed.items()]
    head: list[dict[str, Any]] = [{"run": run}, *errors]
    with replacing(path) as file:
        for line in head:
            file.write(encoded(line))
        for result in read_lines(scans):
            file.write(encoded(result))
        for line in ends:
            file.write(encoded(line))
