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
        "fraction of the images in the validation split (default: 0.2)",
        float,
        default=0.2,
        metavar="F",
        interval=_OPEN_SHARE,
    )
    test: float | None = option(
        "fraction of the images in the test split (default: no test split)", float, metavar="F", interval=_OPEN_SHARE
    )
    folds: int | None = option(
        "write K folds for cross-validation (fold1/train.json, fold1/val.json, ...) instead (default: no folds)",
        int,
        metavar="K",
        interval=_FOLDS,
    )
    group_by: str | None = option(
        "keep images of a group in the same split; the group is their 'folder', a field of the image entries such as "
        "'field:video_id', or the match of a regular expression in the file name such as 'name:^patient\\d+' (default: "
        "no groups)",
        metavar="KEY",
    )
    seed: int = option("random seed (default: 0)", int, default=0, metavar="S", interval="[0, inf)")
