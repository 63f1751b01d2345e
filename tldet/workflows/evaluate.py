"""`tldet evaluate`: score a COCO results file."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.coco.records import CocoSource
from tldet.evaluation.coco import evaluate_files
from tldet.evaluation.columns import Type
from tldet.evaluation.engines import Engine
from tldet.evaluation.report import CocoResult
from tldet.system.output import check_output

if TYPE_CHECKING:
    from rich.console import Console


def evaluate(
    gt: CocoSource,
    dt: CocoSource,
    *,
    type: Type = "bbox",
    engine: Engine = "fast",
    json_path: str | PathLike[str] | None = None,
    console: Console | None = None,
) -> CocoResult:
    """Score detections against ground truth.

    Args:
        gt: ground truth, COCO JSON.
        dt: detections, COCO results JSON.
        type: "bbox" or "segm".
        engine: "fast" or "pycocotools".
        json_path: output file of the metrics.
        console: shows the table of metrics.

    Raises:
        DataError: a file cannot be read or written, or a record cannot be scored; one line that names it.
    """
    if json_path is not None:
        check_output(Path(json_path), [gt, dt])
    result = evaluate_files(gt, dt, type=type, engine=engine)
    try:
        if console:
            console.print(result.table())
    finally:  # either may fail, standard output or the file
        if json_path is not None:
            result.save(json_path)
    return result
