"""Request of ``tldet split``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tldet.workflows.options import REQUIRED, described, option
from tldet.workflows.requests import DataOptions

_OPEN_SHARE, _FOLDS = "(0, 0.9]", "[2, inf)"


@dataclass(frozen=True, kw_only=True)
class SplitRequest(DataOptions):
    """Arguments of ``tldet split``."""

    data: str | Path = field(
        kw_only=False,
        metadata=described(
            "annotation file, or a folder with one split, in any format", metavar="DATA", positional=True
        ),
    )
    out: str | Path = option("output directory, new or empty", default=REQUIRED, metavar="DIR")
    val: float = option(
        "share of the images for validation (default: 0.2)", float, default=0.2, metavar="SHARE", interval=_OPEN_SHARE
    )
    test: float | None = option(
        "share of the images for a test split (default: none)", float, metavar="SHARE", interval=_OPEN_SHARE
    )
    folds: int | None = option(
        "write K folds for cross-validation, fold1/train.json, fold1/val.json, ..., instead of one split",
        int,
        metavar="K",
        interval=_FOLDS,
    )
    group_by: str | None = option(
        "keep images together that share their 'folder', a field of the image entry of a COCO JSON such as "
        "'field:video_id', or the part of the file name that a regular expression matches, such as 'name:^patient\\d+'",
        metavar="WHAT",
    )
    seed: int = option("random seed (default: 0)", int, default=0, metavar="S", interval="[0, inf)")
