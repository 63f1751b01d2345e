"""``tldet check --cross-validate``: label errors of a training split, by detectors of the other folds."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tldet.coco.reader import read_coco
from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records
from tldet.errors import ConfigError, DataError
from tldet.inference.loading import load
from tldet.system.inputs import is_file, read_file
from tldet.workflows.check.label_errors import label_errors
from tldet.workflows.check.request import CheckRequest
from tldet.workflows.split.split import SPLIT_REPORT, split
from tldet.workflows.training.finetune import finetune

log = logging.getLogger(__name__)
_FOLDS = "folds"


def cross_validate(
    request: CheckRequest, splits: Sequence[Records], track: Callable[[Sequence[int]], Iterable[int]] = iter
) -> Iterator[Finding]:
    """Train a detector for each fold, and yield the probable label errors of the images that are left out of it.

    Raises:
        TldetError: the dataset has no training split with images, or cannot be trained on.
    """
    records = _training_split(request, splits)
    folder, count = Path(request.runs), int(request.cross_validate or 0)
    _write_folds(request, records, folder / _FOLDS, count)
    for number in range(1, count + 1):
        data = folder / _FOLDS / f"fold{number}"
        log.info("fold %d of %d", number, count)
        length: dict[str, Any] = {} if request.length is None else request.length.section()
        options: dict[str, Any] = {"out": folder / f"fold{number}", "resume": True, "device": request.device, **length}
        checkpoint = finetune(data, console=request.console, report=False, **options).trained()
        chosen = _positions(records, data / "val.json")
        yield from label_errors(records, load(checkpoint, request.device), request.score, track, chosen)


def _training_split(request: CheckRequest, splits: Sequence[Records]) -> Records:
    found = [one for one in splits if one.folder is not None]
    train = [one for one in found if one.split == "train"] or (found if len(found) == 1 else [])
    if not train:
        raise DataError(f"{request.data}: has no training split with images for --cross-validate")
    if train[0].sources and len(splits) > 1:
        raise ConfigError(
            f"--cross-validate needs COCO JSON; convert the dataset: tldet convert {request.data} --to coco --out DIR"
        )
    return train[0]


def _write_folds(request: CheckRequest, records: Records, out: Path, count: int) -> None:
    """Write the folds, or keep those of an earlier check of the same data.

    Raises:
        ConfigError: the folder contains folds of other data.
    """
    data = request.data if records.sources else records.file
    if is_file(out / SPLIT_REPORT):
        report = json.loads(read_file(out / SPLIT_REPORT, DataError))
        same = report["data"] == str(data) and len(report["parts"]) == 2 * count
        if not same:
            raise ConfigError(f"{out}: contains the folds of another check; choose another --runs or remove it")
        return
    split(
        data,
        out=out,
        images=request.images if records.sources else records.folder,
        format=request.format,
        voc_boxes=request.voc_boxes,
        folds=count,
    )


def _positions(records: Records, path: Path) -> list[int]:
    """Return the positions of the images of a fold."""
    ids = [image.id for image in read_coco(path).images]
    found: list[int] = np.flatnonzero(np.isin(records.image_ids, ids)).tolist()
    return found
