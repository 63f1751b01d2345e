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
        "least severity of a finding for exit code 1 (default: error)", default="error", choices=SEVERITIES
    )
    json: str | Path | None = option("output file of the findings, JSON", metavar="FILE", file=True)
    html: str | Path | None = option("output page of the findings with images, HTML", metavar="FILE", file=True)
    fix: str | Path | None = option(
        "output file of the repaired annotations, COCO JSON; a folder if there are several splits. Only changes that "
        "are determined are made, and listed beside it",
        metavar="OUT",
    )
    fast: bool = option("check annotations and image files only, without a search for equal images", bool)
    input_size: int = option(
        "short side of the images in training, to judge object sizes and anchors (default: 320)",
        int,
        default=320,
        metavar="N",
        interval=COUNT,
    )
    model: str | Path | None = option(
        "detector checkpoint to find probable label errors with; it should not be trained on these images",
        metavar="CKPT",
        exclusive="detector",
    )
    cross_validate: int | None = option(
        "find probable label errors of the training split with K detectors, each trained on the other folds",
        int,
        metavar="K",
        interval="[2, inf)",
        exclusive="detector",
    )
    runs: str | Path = option(
        "directory of the runs of --cross-validate, which are resumed (default: runs/check)",
        default="runs/check",
        metavar="DIR",
    )
    score: float = option(
        "least score of a prediction that a label is missing for (default: 0.5)",
        float,
        default=0.5,
        metavar="S",
        interval=PROBABILITY,
    )
    device: str = device_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is not None and self.cross_validate is not None:
            raise ConfigError("--model and --cross-validate exclude each other")
