"""Rejecting or skipping the unusable images of a dataset before training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tldet.data.checks.files import MISSING, Fault, Findings, find_faults
from tldet.data.file_names import missing_images
from tldet.data.images import several_frames
from tldet.errors import DataError
from tldet.text import counted

if TYPE_CHECKING:
    from tldet.data.dataset import CocoDataset

log = logging.getLogger(__name__)
_LISTED = 500  # images logged at most


def handle_bad_images(dataset: CocoDataset) -> None:
    """Check all image files of a dataset; reject or skip the unusable ones, as its ``on_bad_image`` specifies.

    Raises:
        DataError: unusable images with ``on_bad_image="error"``, or no usable image is left. The message names the
            first image and counts the others.
    """
    faults, several = _findings(dataset)
    path, total = dataset.index.path, len(dataset)
    if several:
        log.warning("%s: %s", path, several_frames([dataset.file_names[position] for position in several]))
    if not faults:
        return
    missing = [dataset.file_names[fault.position] for fault in faults if fault.problem == MISSING]
    if dataset.on_bad_image == "error" and missing:
        error = missing_images(dataset.folder, missing, total, path)
        raise DataError(f"{error}; add them, or skip them with --on-bad-image skip")
    lines = _lines(dataset, faults)
    if dataset.on_bad_image == "skip" or len(lines) > 1:
        _log_all(lines)
    if dataset.on_bad_image == "error":
        more = f" (and {len(lines) - 1} more, listed above)" if len(lines) > 1 else ""
        raise DataError(
            f"{path}: {len(lines)} of {counted(total, 'image')} cannot be used: {lines[0]}{more}; repair or "
            "replace them, or skip them with --on-bad-image skip"
        )
    if len(faults) == total:
        raise DataError(f"{path}: no image can be used; check the files")
    dataset.positions = np.setdiff1d(dataset.positions, [fault.position for fault in faults])
    log.warning("%s: %d of %s skipped", path, len(faults), counted(total, "image"))


def usable_ids(dataset: CocoDataset) -> list[int]:
    """Return the ids of the images of a dataset that can be used."""
    bad = {fault.position for fault in _findings(dataset).faults}
    ids = dataset.index.image_ids
    return [int(ids[position]) for position in dataset.positions.tolist() if position not in bad]


def _findings(dataset: CocoDataset) -> Findings:
    index, positions = dataset.index, dataset.positions.tolist()
    further = index.sizes, index.path, positions, dataset.max_pixels
    findings = find_faults(dataset.folder, dataset.file_names, *further)
    if dataset.matched or all(fault.problem != MISSING for fault in findings.faults):
        return findings
    dataset.match_file_names()
    return find_faults(dataset.folder, dataset.file_names, *further)


def _lines(dataset: CocoDataset, faults: Sequence[Fault]) -> list[str]:
    names, ids = dataset.file_names, dataset.index.image_ids
    return [f"{dataset.folder / names[at]}: {problem} (image {ids[at]})" for at, problem, _ in faults]


def _log_all(lines: Sequence[str]) -> None:
    for line in lines[:_LISTED]:
        log.warning("%s", line)
    if len(lines) > _LISTED:
        log.warning("... and %d more", len(lines) - _LISTED)
