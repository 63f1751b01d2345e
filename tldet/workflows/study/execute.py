"""Execution of one run of a study: training, evaluation, result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet import checkpoint
from tldet.config import option_value, parse_options
from tldet.evaluation.loading import load_results
from tldet.evaluation.report import CocoResult
from tldet.evaluation.resample import RESAMPLING_VERSION, resampled_ap
from tldet.workflows.command_requests import TestRequest
from tldet.workflows.evaluation_data import EvaluationData
from tldet.workflows.study.data import evaluated, truth_of
from tldet.workflows.study.job import Job, write_result
from tldet.workflows.test import evaluate_on
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
DETECTIONS_NAME = "detections.json"  # of the validation images, in the folder of a run


def finetuned(job: Job, console: Console | None = None) -> Outcome:
    """Fine-tune (:func:`tldet.finetune`), or resume this."""
    if checkpoint.steps_in(job.folder):
        return finetune(out=job.folder, resume=True, console=console, report=False)
    (job.folder / "best.pt").unlink(missing_ok=True)  # of a run that was killed before its first complete checkpoint
    length = {"steps": job.steps} if job.steps is not None else dict(job.length)
    return finetune(out=job.folder, console=console, report=False, **length, **job.call)


def execute(
    job: Job, console: Console | None = None, train: Callable[[Job, Console | None], Outcome] = finetuned
) -> dict[str, Any]:
    """Execute or resume a run and write its result to its folder.

    The last weights are evaluated, once: the best of several validations would be selected on the images of the
    evaluation.

    Args:
        job: the run.
        console: shows progress of the run.
        train: starts or resumes training.

    Returns:
        The result (:func:`~tldet.workflows.study.job.write_result`).

    Raises:
        TldetError: the data or a setting is wrong, or a run with other settings was started in the folder.
        KeyboardInterrupt: the state of the run is saved.
    """
    job.save()
    started = time.monotonic()
    outcome = train(job, console)
    trained = outcome.trained()
    metrics = _evaluated(job, trained)
    result = write_result(
        job,
        {
            "steps": outcome.train.step,
            "seconds": outcome.train.seconds,
            "elapsed": time.monotonic() - started,
            "numbers": metrics.numbers(),
            "per_class": metrics.per_class,
            "per_class_ap50": metrics.per_class_ap50,
            "type": metrics.type,
            "checkpoint": str(trained),
            **_resampled(job, metrics.type, trained),
        },
    )
    for path in checkpoint.steps_in(job.folder):  # the state for resuming; the weights are kept
        if path != trained:
            path.unlink()
    return result


def _evaluated(job: Job, trained: Path) -> CocoResult:
    """Evaluate a checkpoint and write its detections to the folder of the run."""
    annotations, images = job.val
    device = option_value(parse_options(job.call.get("cfg_options", ())), "training.device")
    bad: str | None = job.call.get("on_bad_image")
    given = EvaluationData(split="val", on_bad_image=bad)
    if annotations:
        given = EvaluationData(annotations, images, on_bad_image=bad, sources=job.sources)
    return evaluate_on(TestRequest(trained, results=job.folder / DETECTIONS_NAME, device=str(device or "auto")), given)


def _resampled(job: Job, kind: str, checkpoint: str | Path) -> dict[str, Any]:
    """Compute AP on every bootstrap sample of validation images from the stored detections, with its version."""
    truth = truth_of(job, "segm" if kind == "segm" else "bbox", checkpoint)
    if not job.sources:  # images of user datasets are never skipped
        truth = evaluated(truth, job.val, job.call.get("on_bad_image"))
    drawn = resampled_ap(truth, load_results(job.folder / DETECTIONS_NAME, truth))
    return {"resampled_ap": drawn.tolist(), "resampling": RESAMPLING_VERSION}


def up_to_date(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a finished run; bootstrap AP of an older version is recomputed.

    Raises:
        DataError: the stored detections cannot be read.
    """
    if "resampled_ap" not in result or result.get("resampling", 1) == RESAMPLING_VERSION:
        return result
    log.info("%s: recomputed intervals over images (stored by an older version)", job.folder)
    settings = {name: value for name, value in result.items() if name not in (*job.factors, "images", "settings")}
    return write_result(
        job, {**settings, **_resampled(job, str(result.get("type", "bbox")), result.get("checkpoint", ""))}
    )
