"""A run of a study made: fine-tuned, measured on the validation images, written down."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet import checkpoint
from tldet.config import option_value, parse_options
from tldet.data.checks.images import usable_ids
from tldet.data.dataset import CocoDataset
from tldet.evaluation.loading import load_results
from tldet.evaluation.resample import VERSION, resampled_ap
from tldet.workflows.study.data import truth_of
from tldet.workflows.study.job import Job, write_result
from tldet.workflows.test import test
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.train import Outcome

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
DETECTIONS_NAME = "detections.json"  # on the validation images, in a run's folder


def finetuned(job: Job, console: Console | None = None) -> Outcome:
    """Train by :func:`tldet.workflows.training.finetune.finetune`, or go on with it."""
    if checkpoint.steps_in(job.folder):
        return finetune(out=job.folder, resume=True, console=console)
    (job.folder / "best.pt").unlink(missing_ok=True)  # of a run that was killed before its first whole checkpoint
    length = {"steps": job.steps} if job.steps is not None else dict(job.length)
    return finetune(out=job.folder, console=console, **length, **job.call)


def execute(
    job: Job, console: Console | None = None, train: Callable[[Job, Console | None], Outcome] = finetuned
) -> dict[str, Any]:
    """Make a run, or go on with it where it was begun, and write its result into its folder.

    The numbers are those of the weights at the end of the budget, measured once: the best of several validations would
    be chosen by the very images that it is measured on.

    Args:
        job: the run.
        console: shows the run's own progress.
        train: trains it, or goes on with it.

    Returns:
        What :func:`~tldet.workflows.study.job.write_result` wrote.

    Raises:
        TldetError: the data or a setting is wrong, or a run of other settings was begun in the folder.
        KeyboardInterrupt: the run is saved.
    """
    job.keep()
    begun = time.monotonic()
    outcome = train(job, console)
    trained = outcome.trained()
    annotations, images = job.val
    detections = job.folder / DETECTIONS_NAME
    device = option_value(parse_options(job.call.get("cfg_options", ())), "training.device")
    where: dict[str, Any] = {"data": annotations, "images": images} if annotations else {"split": "val"}
    where["on_bad_image"] = job.call.get("on_bad_image")
    found = test(trained, **where, results_path=detections, device=str(device or "auto"))
    result = write_result(
        job,
        {
            "steps": outcome.train.step,
            "seconds": outcome.train.seconds,
            "elapsed": time.monotonic() - begun,
            "numbers": found.numbers(),
            "per_class": found.per_class,
            "per_class_ap50": found.per_class_ap50,
            "type": found.type,
            "checkpoint": str(trained),
            **_resampled(job, found.type, trained),
        },
    )
    for path in checkpoint.steps_in(job.folder):  # the state to go on from; the weights stay
        if path != trained:
            path.unlink()
    return result


def _resampled(job: Job, kind: str, checkpoint: str | Path) -> dict[str, Any]:
    """Compute AP on every bootstrap sample of validation images from the stored detections, with its version."""
    truth = truth_of(job, "segm" if kind == "segm" else "bbox", checkpoint)
    if job.val[0] and job.call.get("on_bad_image") == "skip":  # as in the evaluation
        truth = truth.on(usable_ids(CocoDataset(*job.val, on_bad_image="skip")))
    drawn = resampled_ap(truth, load_results(job.folder / DETECTIONS_NAME, truth))
    return {"resampled_ap": drawn.tolist(), "resampling": VERSION}


def up_to_date(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Return the result of a finished run; bootstrap AP of an older version is recomputed.

    Raises:
        DataError: the stored detections cannot be read.
    """
    if "resampled_ap" not in result or result.get("resampling", 1) == VERSION:
        return result
    log.info("%s: intervals over images recomputed (the stored ones are of an older version)", job.folder)
    settings = {name: value for name, value in result.items() if name not in (*job.factors, "images", "settings")}
    return write_result(
        job, {**settings, **_resampled(job, str(result.get("type", "bbox")), result.get("checkpoint", ""))}
    )
