"""Requests of ``tldet report`` and ``tldet compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.errors import ConfigError
from tldet.workflows.options import (
    described,
    device_option,
    option,
    overwrite_option,
    precision_option,
    split_option,
)
from tldet.workflows.requests import DataOptions

if TYPE_CHECKING:
    from tldet.coco.records import CocoSource
    from tldet.evaluation.columns import Type

WORST = 200  # maximum number of images in a report


@dataclass(frozen=True, kw_only=True)
class ReportOptions(DataOptions):
    """Options of data and outputs that both commands share."""

    gt: CocoSource | None = option("ground truth of results files, COCO JSON", metavar="JSON")
    type: Type | None = option(
        "detection type: bbox or segm (default: bbox for results files, that of the model for a checkpoint)",
        choices=["bbox", "segm"],
    )
    data: str | Path | None = option(
        "annotation file, or dataset folder (its test split, or its validation split if there is no test split) "
        "(default: test or validation split of the checkpoint's config)",
        metavar="DATA",
    )
    images: str | Path | None = option(
        "image directory (default: found by file names for --data; none for --gt, which shows boxes without images)",
        metavar="DIR",
    )
    split: str | None = split_option()
    out: str | Path = option(
        "output file, HTML report (default: report.html)", default="report.html", metavar="FILE", file=True
    )
    tables: str | Path | None = option(
        "output directory for all tables (CSV, LaTeX, JSON) and plots (PNG, SVG)", metavar="DIR"
    )
    json: str | Path | None = option("output file, JSON with all numbers", metavar="FILE", file=True)
    device: str = device_option()
    precision: str = precision_option("auto, bf16 or fp16 on a GPU, fp32 on a CPU")
    overwrite: bool = overwrite_option()


@dataclass(frozen=True, kw_only=True)
class ReportRequest(ReportOptions):
    """Arguments of ``tldet report``."""

    checkpoint: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described(
            "a tldet checkpoint, an exported detector or a run directory (or use --gt and --dt)",
            metavar="CKPT",
            positional=True,
        ),
    )
    dt: CocoSource | None = option("detections to analyze instead of a checkpoint, COCO results JSON", metavar="JSON")
    save_thresholds: str | Path | None = option(
        "output file, copy of the checkpoint with the best score threshold of each class, which tldet predict then "
        "uses, also after export; chosen on the validation split unless --split or --data is given",
        metavar="NEW.pt",
        file=True,
    )
    save_temperature: str | Path | None = option(
        "output file, copy of the checkpoint with the temperature that calibrates its scores; may be the same file as "
        "--save-thresholds",
        metavar="NEW.pt",
        file=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.checkpoint is None) == (self.dt is None):
            raise ConfigError("specify a checkpoint, or --gt and --dt")
        if (self.gt is None) != (self.dt is None):
            raise ConfigError("--gt and --dt must be given together; for a checkpoint, use --data")
        if self.dt is not None and (self.save_thresholds or self.save_temperature):
            raise ConfigError("--save-thresholds and --save-temperature need a checkpoint, not a results file")

    def on_validation(self) -> ReportRequest:
        """Return the request on the validation split, if values are stored and no other data is specified."""
        stores = self.save_thresholds is not None or self.save_temperature is not None
        return replace(self, split="val") if stores and self.split is None and self.data is None else self


@dataclass(frozen=True, kw_only=True)
class CompareRequest(ReportOptions):
    """Arguments of ``tldet compare``."""

    detectors: Sequence[str | Path] = field(
        kw_only=False,
        metadata=described(
            "two or more run directories, checkpoints or exported detectors, or COCO results files with --gt",
            metavar="A B",
            many=True,
            positional=True,
        ),
    )
    out: str | Path = option(
        "output file, HTML report (default: compare.html)", default="compare.html", metavar="FILE", file=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.detectors, (str, Path)) or len(self.detectors) < 2:
            raise ConfigError("specify at least two detectors to compare")
