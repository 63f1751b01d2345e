"""Table of the checks of one split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tldet.data.checks import boxes, categories, image_files, outlines, statistics
from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records
from tldet.data.checks.statistics import InputSettings


@dataclass(frozen=True)
class Check:
    """A check of the annotations of one split.

    Attributes:
        run: yields the findings.
        fast: the check is vectorized over all objects, and also runs before every training.
    """

    run: Callable[[Records, InputSettings], Iterable[Finding]]
    fast: bool


CHECKS: tuple[Check, ...] = (
    Check(lambda records, _: image_files.check_names(records), fast=False),
    Check(lambda records, _: categories.check_categories(records), fast=True),
    Check(lambda records, _: boxes.check_extents(records), fast=False),
    Check(lambda records, _: boxes.check_repeated(records), fast=True),
    Check(lambda records, _: outlines.check_masks(records), fast=False),
    Check(lambda records, _: outlines.check_crowd(records), fast=True),
    Check(lambda records, _: statistics.check_classes(records), fast=True),
    Check(statistics.check_objects, fast=True),
)


def check_annotations(splits: Sequence[Records], settings: InputSettings, *, fast: bool = False) -> Iterator[Finding]:
    """Yield the findings about the annotations of each split.

    Args:
        splits: the splits.
        settings: training settings that objects are checked against.
        fast: run the fast checks only.
    """
    for records in splits:
        for check in CHECKS:
            if check.fast or not fast:
                yield from check.run(records, settings)
