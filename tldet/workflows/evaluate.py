"""``tldet evaluate``: evaluate a COCO results file."""

from __future__ import annotations

from pathlib import Path

from tldet.evaluation.coco import evaluate_files
from tldet.evaluation.report import CocoResult
from tldet.system.output import check_output
from tldet.workflows.command_requests import EvaluateRequest
from tldet.workflows.requests import takes


@takes(EvaluateRequest)
def evaluate(request: EvaluateRequest) -> CocoResult:
    """Evaluate detections against ground truth.

    Raises:
        DataError: a file cannot be read or written, or a record cannot be evaluated; the message names it.
    """
    if request.json is not None:
        check_output(Path(request.json), [request.gt, request.dt])
    result = evaluate_files(request.gt, request.dt, type=request.type, engine=request.engine)
    try:
        if request.console:
            request.console.print(result.table())
    finally:  # either may fail, standard output or the file
        if request.json is not None:
            result.save(request.json)
    return result
