"""Matching of a results file to a dataset: by ids, or by names if ids and names disagree."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from tldet.coco import checks
from tldet.coco.names import FileNames
from tldet.coco.results import Detection
from tldet.errors import DataError
from tldet.evaluation.columns import GroundTruth, Ints
from tldet.text import counted

_logger = logging.getLogger(__name__)
Key = tuple[int | float, str | None]  # id and name in a record
BY_ID = "or remove {key} from the records to match by {id}"


def match_images(name: str, records: Sequence[Detection], truth: GroundTruth, who: checks.Who) -> Ints:
    """Find the image of each record.

    If the ``file_name`` of any record is not that of its ``image_id``, all records are matched by file name.

    Returns:
        (N,) int64 ranks.

    Raises:
        DataError: an id is unknown, or ids and file names disagree and a file name does not fit exactly one image.
    """
    known, names = truth.image_rank(), FileNames(truth.file_names)
    pairs: dict[Key, None] = {}
    if any(one is not None for one in truth.file_names):
        pairs = {(one.image_id, one.file_name): None for one in records if one.file_name is not None}
    wrong = [one for one in pairs if one[0] not in known or not names.agrees(known[one[0]], str(one[1]))]
    if not wrong:
        return checks.positions_of([one.image_id for one in records], truth.image_ids, "image_id", who)
    keys: list[Key] = [(one.image_id, one.file_name) for one in records]
    found = {one: names.find(str(one[1])) for one in pairs}
    nameless = next((row for row, key in enumerate(keys) if key[1] is None), None)
    if nameless is not None:
        raise DataError(f"{who(nameless)} has no file_name; add it, as ids and file names of other records disagree")
    for row, key in enumerate(keys):
        fitting = found[key]
        if len(fitting) != 1:
            raise DataError(f"{who(row)} {_misfit(key, known, truth)} {_fits(fitting, truth)}")
    _logger.warning(
        "%s: %s of other images in %s; all records are matched by file_name",
        name,
        counted(len(wrong), "image id"),
        truth.name,
    )
    return np.array([found[key][0] for key in keys], np.int64)


def _misfit(key: Key, known: dict[Any, int], truth: GroundTruth) -> str:
    image, file_name = key
    its = f"is {truth.file_names[known[image]]!r}" if image in known else "is unknown"
    return f"has file_name {file_name!r}, but this image_id {its} in {truth.name}, and the file name fits"


def _fits(fitting: Sequence[int], truth: GroundTruth) -> str:
    advice = "predict with --annotations to take the ids from the dataset"
    if not fitting:
        return f"no image of the dataset; {advice}, {BY_ID.format(key='file_name', id='image_id')}"
    ids = ", ".join(str(truth.image_ids[rank]) for rank in fitting[:5])
    return f"several images of the dataset (ids {ids}); {advice}"


def match_categories(
    name: str, records: Sequence[Detection], truth: GroundTruth, who: checks.Who
) -> tuple[Ints, Sequence[int]]:
    """Find the class of each record.

    If the ``category_name`` of any record is not that of its ``category_id``, all records are matched by name.
    Detections of classes that the dataset does not have are left out, as in ``tldet test``.

    Returns:
        Ranks (N,) int64 of the kept rows, and the kept rows.

    Raises:
        DataError: an id is unknown, or the dataset has none of the class names.
    """
    pairs = {(one.category_id, one.category_name): None for one in records if one.category_name is not None}
    wrong = [one for one in pairs if not _is_named(truth, *one)]
    if not wrong:
        kept: Sequence[int] = range(len(records))
        if truth.unused is not None:
            kept = [row for row, one in enumerate(records) if one.category_id != truth.unused]
        _left_out(name, len(records) - len(kept), [f"category id {truth.unused}"])
        ids = [records[row].category_id for row in kept]
        return checks.positions_of(ids, truth.category_ids, "category_id", lambda row: who(kept[row])), kept
    keys: list[Key] = [(one.category_id, one.category_name) for one in records]
    rank_of = {one: rank for rank, one in enumerate(truth.class_names)}
    nameless = next((row for row, key in enumerate(keys) if key[1] is None), None)
    if nameless is not None:
        raise DataError(f"{who(nameless)} has no category_name; add it, as ids and names of other records disagree")
    if not any(one[1] in rank_of for one in pairs):
        theirs = checks.shortened([repr(one) for one in dict.fromkeys(key[1] for key in pairs)])
        ours = checks.shortened([repr(one) for one in truth.class_names])
        raise DataError(f"{name}: no category_name is a class of {truth.name} (file: {theirs}; dataset: {ours})")
    moved = [one for one in wrong if one[1] in rank_of]
    if moved:
        _logger.warning(
            "%s: category id %s is %r here but another class in %s; all records are matched by category_name",
            name,
            *moved[0],
            truth.name,
        )
    kept = [row for row, key in enumerate(keys) if key[1] in rank_of]
    _left_out(name, len(keys) - len(kept), sorted({str(one[1]) for one in pairs if one[1] not in rank_of}))
    return np.array([rank_of[str(keys[row][1])] for row in kept], np.int64), kept


def _is_named(truth: GroundTruth, category: int | float, name: str) -> bool:
    """Return True if ``name`` is that of the category; a category without a name matches any."""
    if category not in truth.category_ids:
        return category == truth.unused
    own = truth.class_names[truth.category_ids.index(category)]
    return own in (name, f"{name} (id {category})", str(category))


def _left_out(name: str, count: int, classes: Sequence[str]) -> None:
    if count:
        named = checks.shortened(classes, 5)
        text = "%s: %s left out: the dataset does not have their classes (%s)"
        _logger.warning(text, name, counted(count, "detection"), named)
