"""Request of ``tldet check``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tldet.data.checks.findings import SEVERITIES, Severity
from tldet.errors import ConfigError
from tldet.workflows.options import (
    COUNT,
    PROBABILITY,
    described,
    device_option,
    option,
    overwrite_option,
)
from tldet.workflows.requests import DataOptions
from tldet.workflows.training.run_options import LengthOptions


@dataclass(frozen=True, kw_only=True)
class CheckRequest(DataOptions, LengthOptions):
    """Arguments of ``tldet check``."""

    data: str | Path = field(
        kw_only=False,
        metadata=described("dataset folder or annotation file, in any format", metavar="DATA", positional=True),
    )
    fail_on: Severity = option(
        "exit with code 1 if a finding has at least this severity (default: error)", default="error", choices=SEVERITIES
    )
    json: str | Path | None = option("output file, JSON with all findings", metavar="FILE", file=True)
    html: str | Path | None = option("output file, HTML report with images", metavar="FILE", file=True)
    fix: str | Path | None = option(
        "output file, repaired COCO JSON, or a folder if there are several splits; only unambiguous repairs are "
        "made, and listed in a NAME_changes.json next to it",
        metavar="OUT",
    )
    fast: bool = option("skip the search for duplicate images", bool)
    input_size: int = option(
        "short side of the training images in pixels, for checks of object sizes and anchors (default: 320, or that of "
        "--model)",
        int,
        default=320,
        metavar="N",
        interval=COUNT,
    )
    model: str | Path | None = option(
        "detector checkpoint that finds probable label errors; it should not have been trained on these images",
        metavar="CKPT",
        exclusive="detector",
    )
    cross_validate: int | None = option(
        "find label errors of the training split by cross-validation with K folds; the training length applies to "
        "each fold",
        int,
        metavar="K",
        interval="[2, inf)",
        exclusive="detector",
    )
    runs: str | Path = option(
        "directory of the runs of --cross-validate; existing runs are resumed (default: runs/check)",
        default="runs/check",
        metavar="DIR",
    )
    score: float = option(
        "score threshold of detections that are reported as missing labels (default: 0.5)",
        float,
        default=0.5,
        metavar="S",
        interval=PROBABILITY,
    )
    device: str = device_option()
    overwrite: bool = overwrite_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.cross_validate is not None:
            raise ConfigError("--model and --cross-validate cannot be combined")
