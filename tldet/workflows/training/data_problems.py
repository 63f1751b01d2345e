"""Problems of the annotations of a training run, found by the fast checks of ``tldet check``."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator

from tldet.coco.checks import shortened
from tldet.data.checks.categories import check_between_splits
from tldet.data.checks.findings import CODES, Finding
from tldet.data.checks.records import Records
from tldet.data.checks.statistics import InputSettings
from tldet.data.checks.table import check_annotations
from tldet.data.dataset import CocoDataset
from tldet.system.inputs import real_path
from tldet.text import counted
from tldet.workflows.training.datasets import AnyDataset

log = logging.getLogger(__name__)


def log_problems(train: AnyDataset, val: AnyDataset | None) -> None:
    """Log a warning for each kind of problem, with the first occurrence, and for images and groups in both splits."""
    if shared := sorted(getattr(train, "groups", set()) & getattr(val, "groups", set()), key=str):
        text = "train and val have images of the same %s, so that the validation AP is too high: %s"
        log.warning(text, "groups" if len(shared) > 1 else "group", shortened(shared))
    if same := sorted(_paths(train) & _paths(val)):
        text = "train and val share %s, so that the validation AP is too high: %s"
        log.warning(text, counted(len(same), "image"), shortened(same))
    groups: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in _problems(train, val):
        groups[finding.file, finding.code].append(finding)
    for (file, code), found in groups.items():
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        object = "" if found[0].annotation is None else f"annotation id {found[0].annotation}: "
        log.warning("%s: %s: %s%s%s; see tldet check", file, CODES[code][1], object, found[0].message, more)


def _paths(dataset: AnyDataset | None) -> set[str]:
    """Return the paths of the images of a split; empty for a custom dataset."""
    if not isinstance(dataset, CocoDataset):
        return set()
    folder, names = str(real_path(dataset.folder)), dataset.index.file_names
    return {os.path.normpath(os.path.join(folder, names[position])) for position in dataset.positions}  # noqa: PTH118


def _problems(train: AnyDataset, val: AnyDataset | None) -> Iterator[Finding]:
    splits = [Records.of_index("train", train.index)]
    splits += [] if val is None else [Records.of_index("val", val.index)]
    bounds = train.pipeline.bounds
    settings = InputSettings() if bounds is None else InputSettings(*bounds)
    found = [*check_annotations(splits, settings, fast=True), *check_between_splits(splits)]
    yield from (finding for finding in found if finding.severity != "info")
