"""All findings about a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tldet.data.checks.categories import check_between_splits
from tldet.data.checks.copies import check_copies
from tldet.data.checks.findings import Finding
from tldet.data.checks.image_files import check_image_files, check_unlisted
from tldet.data.checks.records import Records
from tldet.data.checks.statistics import InputSettings
from tldet.data.checks.table import check_annotations
from tldet.workflows.check.anchors import input_settings
from tldet.workflows.check.request import CheckRequest
from tldet.workflows.check.sources import CheckSource

if TYPE_CHECKING:
    from rich.progress import Progress


def find_problems(request: CheckRequest, source: CheckSource, progress: Progress) -> Iterator[Finding]:
    """Yield all findings about a dataset."""
    yield from source.findings
    splits, settings = source.splits, input_settings(request)
    yield from quick_problems(splits, settings, _tracked(progress, "checking images"))
    yield from check_between_splits(splits)
    yield from check_unlisted(splits)
    if not request.fast:
        yield from check_copies(splits, _tracked(progress, "reading images"), _tracked(progress, "comparing images"))
    yield from _label_errors(request, splits, progress)


def _label_errors(request: CheckRequest, splits: Sequence[Records], progress: Progress) -> Iterator[Finding]:
    if request.model is not None:
        from tldet.workflows.check.label_errors import check_labels

        yield from check_labels(request, splits, _tracked(progress, "detecting"))
    elif request.cross_validate is not None:
        from tldet.workflows.check.cross_validation import cross_validate

        yield from cross_validate(request, splits, _tracked(progress, "detecting"))


def quick_problems(
    splits: Sequence[Records], settings: InputSettings, track: Callable[[Sequence[int]], Iterable[int]] = iter
) -> Iterator[Finding]:
    """Yield the findings about annotations and image files."""
    yield from check_annotations(splits, settings)
    for records in splits:
        if records.folder is not None:
            yield from check_image_files(records, track)


def _tracked(progress: Progress, text: str) -> Callable[[Sequence[int]], Iterable[int]]:
    return lambda rows: progress.track(rows, description=text)
