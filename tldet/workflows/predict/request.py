"""Request of ``tldet predict``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.runtime import SCORE
from tldet.workflows.options import (
    COUNT,
    PROBABILITY,
    described,
    device_option,
    nms_option,
    option,
    overlap_option,
    overwrite_option,
    precision_option,
    threads_option,
    tiles_option,
)
from tldet.workflows.requests import Request

if TYPE_CHECKING:
    from tldet.inference.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class _ResultFiles(Request):
    """Base class of requests that write detections to output files."""

    json: str | Path | None = option("output file, COCO results JSON", metavar="FILE", file=True)
    coco: str | Path | None = option(
        "output file, COCO dataset JSON with the detections as annotations", metavar="FILE", file=True
    )
    csv: str | Path | None = option("output file, CSV, one row per detection", metavar="FILE", file=True)
    parquet: str | Path | None = option(
        "output file, Parquet, one row per detection (pip install 'tldet[parquet]')", metavar="FILE", file=True
    )
    jsonl: str | Path | None = option(
        "output file, JSON Lines, one line per image or frame (written during a tldet predict run)",
        metavar="FILE",
        file=True,
    )
    overwrite: bool = overwrite_option()


@dataclass(frozen=True, kw_only=True)
class PredictRequest(_ResultFiles):
    """Arguments of ``tldet predict``."""

    checkpoint: str | Path = field(
        kw_only=False, metadata=described("a tldet checkpoint or an exported detector", metavar="CKPT", positional=True)
    )
    inputs: str | Path | Sequence[str | Path] = field(
        kw_only=False,
        metadata=described(
            "images, folders, globs, videos, or a camera number", metavar="INPUT", many=True, positional=True
        ),
    )
    out: str | Path | None = option("output directory for images and videos with drawn detections", metavar="DIR")
    yolo: str | Path | None = option("output directory for YOLO labels (labels/*.txt and classes.txt)", metavar="DIR")
    crops: str | Path | None = option("output directory for cropped objects, one subfolder per class", metavar="DIR")
    resume: bool = option("resume an interrupted run: skip the inputs that the --jsonl file contains", bool)
    shard: str | None = option(
        "predict on part K of N of the inputs; tldet merge-results merges the parts (default: from RANK and "
        "WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, else all inputs)",
        metavar="K/N",
    )
    annotations: str | Path | None = option(
        "COCO JSON that lists the inputs; outputs use its image ids, file names and category ids (default: images are "
        "numbered from 1)",
        metavar="JSON",
    )
    score: float | None = option(
        f"score threshold (default: per-class thresholds that tldet report --save-thresholds stored, else {SCORE})",
        float,
        metavar="T",
        interval=PROBABILITY,
    )
    tiles: int | None = tiles_option()
    overlap: float = overlap_option()
    batch_size: int = option(
        "largest number of images per batch (default: 4)", int, default=4, metavar="N", interval=COUNT
    )
    max_pixels: int | None = option(
        "reject images with more pixels (default: about 179 million)", int, metavar="N", interval=COUNT
    )
    nms_per_class: bool | None = nms_option()
    device: str = device_option()
    precision: str = precision_option("auto, bf16 or fp16 on a GPU, the faster of fp32 and bf16 on a CPU")
    threads: int | None = threads_option()
    on_load: Callable[[Predictor], object] | None = field(
        default=None, compare=False, repr=False, metadata={"help": "called with the predictor before the first image"}
    )

    @property
    def given_inputs(self) -> list[str]:
        """The inputs as a list of strings."""
        inputs = [self.inputs] if isinstance(self.inputs, (str, Path)) else self.inputs
        return [str(one) for one in inputs]


@dataclass(frozen=True, kw_only=True)
class MergeResultsRequest(_ResultFiles):
    """Arguments of ``tldet merge-results``."""

    results: str | Path | Sequence[str | Path] = field(
        kw_only=False,
        metadata=described(
            "JSON Lines files of all shards (tldet predict --jsonl)", metavar="JSONL", many=True, positional=True
        ),
    )
    partial: bool = option("merge even if shards or inputs are missing (default: an error)", bool)

    @property
    def given_results(self) -> list[Path]:
        """The JSON Lines files as a list of paths."""
        given = [self.results] if isinstance(self.results, (str, Path)) else self.results
        return [Path(one) for one in given]
