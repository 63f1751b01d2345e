"""`tldet evaluate`: score a COCO results file."""

from __future__ import annotations

from os import PathLike

from tldet.coco.records import Source
from tldet.evaluation.coco import evaluate_files
from tldet.evaluation.columns import Type
from tldet.evaluation.engines import Engine
from tldet.evaluation.report import CocoResult


def evaluate(
    gt: Source,
    dt: Source,
    *,
    type: Type = "bbox",
    engine: Engine = "fast",
    json_path: str | PathLike[str] | None = None,
) -> CocoResult:
    """Score ``dt`` against ``gt`` and write the numbers to ``json_path`` when it is given.

    Raises:
        DataError: a file cannot be read or written, or a record cannot be scored; one line that names it.
    """
    result = evaluate_files(gt, dt, type=type, engine=engine)
    if json_path is not None:
        result.save(json_path)
    return result
