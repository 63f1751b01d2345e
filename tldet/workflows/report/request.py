"""Requests of ``tldet report`` and ``tldet compare``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.errors import ConfigError
from tldet.workflows.options import (
    described,
    device_option,
    option,
    precision_option,
    split_option,
)
from tldet.workflows.requests import DataOptions

if TYPE_CHECKING:
    from tldet.coco.records import CocoSource
    from tldet.evaluation.columns import Type

WORST = 200  # images on a page


@dataclass(frozen=True, kw_only=True)
class ReportOptions(DataOptions):
    """Options of the detections, the data and the page, which both commands have."""

    gt: CocoSource | None = option("ground truth, COCO JSON, of results files", metavar="JSON")
    type: Type | None = option(
        "type of detections in results files (default: bbox); a checkpoint determines it", choices=["bbox", "segm"]
    )
    data: str | Path | None = option(
        "annotation file, or a folder of which the test split is used, else the validation split (default: test or "
        "validation split of the checkpoint's config)",
        metavar="DATA",
    )
    images: str | Path | None = option(
        "image directory (default: searched for --data; without one for --gt, only boxes are shown)", metavar="DIR"
    )
    split: str | None = split_option()
    out: str | Path = option(
        "output page, HTML (default: report.html)", default="report.html", metavar="FILE", file=True
    )
    tables: str | Path | None = option(
        "output directory of all tables (CSV, LaTeX, JSON) and plots (PNG, SVG)", metavar="DIR"
    )
    json: str | Path | None = option("output file of all numbers, JSON", metavar="FILE", file=True)
    device: str = device_option()
    precision: str = precision_option("bf16 on a GPU, fp32 on CPU")


@dataclass(frozen=True, kw_only=True)
class ReportRequest(ReportOptions):
    """Arguments of ``tldet report``."""

    checkpoint: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described(
            "a checkpoint, an exported detector or the folder of a run (or --gt and --dt)",
            metavar="CKPT",
            positional=True,
        ),
    )
    dt: CocoSource | None = option("detections, COCO results JSON, with --gt", metavar="JSON")
    save_thresholds: str | Path | None = option(
        "output checkpoint with the best score threshold of each class, which predict and export use",
        metavar="NEW.pt",
        file=True,
    )
    save_temperature: str | Path | None = option(
        "output checkpoint with the temperature that calibrates the scores of predict; may be the file of "
        "--save-thresholds",
        metavar="NEW.pt",
        file=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.checkpoint is None) == (self.dt is None):
            raise ConfigError("give a checkpoint, or --gt and --dt")
        if (self.gt is None) != (self.dt is None):
            raise ConfigError("--gt and --dt belong together; for a checkpoint use --data")
        if self.dt is not None and (self.save_thresholds or self.save_temperature):
            raise ConfigError("--save-thresholds and --save-temperature need a checkpoint, not a results file")


@dataclass(frozen=True, kw_only=True)
class CompareRequest(ReportOptions):
    """Arguments of ``tldet compare``."""

    detectors: Sequence[str | Path] = field(
        kw_only=False,
        metadata=described(
            "two or more runs, checkpoints, exported detectors, or COCO results files with --gt",
            metavar="A B",
            many=True,
            positional=True,
        ),
    )
    out: str | Path = option(
        "output page, HTML (default: compare.html)", default="compare.html", metavar="FILE", file=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.detectors, (str, Path)) or len(self.detectors) < 2:
            raise ConfigError("compare needs at least two detectors")
