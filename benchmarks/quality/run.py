"""Execution of the benchmark: speeds first, then all runs, one at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import environment, is_busy
from benchmarks.quality.datasets import check_files, prepare
from benchmarks.quality.loop import run_loop
from benchmarks.quality.plan import LOOP, Plan, Speeds, check_request, chosen_variants
from benchmarks.quality.report import (
    ANY_LOAD,
    GIVEN,
    MEASURED,
    PLOT_NAME,
    SECTION_NAME,
    QualityReport,
    write_report,
)
from benchmarks.quality.request import QualityRequest
from benchmarks.quality.summary import Results
from benchmarks.run import cache_in
from tldet.cli.process import keep_freed_memory
from tldet.engine.progress import duration
from tldet.errors import TrainingError
from tldet.evaluation.coco import evaluate_files
from tldet.system.locks import locked
from tldet.text import counted
from tldet.workflows.study.execute import DETECTIONS_NAME, execute
from tldet.workflows.study.job import Job, save_settings, write_result
from tldet.workflows.study.job_queue import JobQueue, JobResult, run_sequential
from tldet.workflows.study.named import check_jobs
from tldet.workflows.training.finetune import finetune

if TYPE_CHECKING:
    from rich.console import Console

CACHE = "cache"  # in the output directory: precision and kernels are chosen once for all runs
Log = Callable[[str], None]


def quality(request: QualityRequest) -> QualityReport:
    """Train all variants on all datasets with all budgets and seeds; report AP by training time.

    A further call with the same arguments resumes: finished runs are kept, an interrupted one is resumed (tldet) or
    started again (torchvision). Datasets, variants, budgets and seeds may be added.

    Raises:
        TldetError: a file is missing, a value is wrong, the machine is busy, or a run failed.
        KeyboardInterrupt: the results so far are reported; the message explains how to resume.
    """
    check_request(request)
    variants = chosen_variants(request)
    check_files(request)
    keep_freed_memory()
    with locked(request.folder), cache_in(request.folder.resolve() / CACHE):
        save_settings(request.folder, {"kind": "quality", "quick": request.quick})
        plan = Plan(request, variants, [prepare(name, request) for name in request.datasets])
        check_jobs([job for job in plan.speed_jobs() if job.variant != LOOP])
        return _executed(plan, request.console)


def _executed(plan: Plan, console: Console | None) -> QualityReport:
    """Measure the missing speeds, execute the missing runs, and report, also after an interrupt or an error."""

    def log(line: str) -> None:
        if console is not None:
            console.print(f"--- {line}", style="bold", markup=False, highlight=False)

    speeds = _speeds(plan, console, log)
    jobs = plan.jobs(speeds)
    minutes = sum(float(job.factors["minutes"]) for job in jobs)
    log(f"{counted(len(jobs), 'run')}, {duration(60 * minutes)} of training")
    queue = JobQueue(jobs, log, cost=lambda job: float(job.factors["minutes"]))
    request = plan.request
    try:
        run_sequential(queue, lambda job: _run(job, request.script, console))
    finally:
        runs, speed = queue.ordered(), GIVEN if request.speed else ANY_LOAD if request.any_load else MEASURED
        found = Results.of(runs, list(plan.variants))
        report = QualityReport(found, runs, len(jobs), speeds, speed, environment())
        if runs:
            _write(report, request.folder, console)
    return report


def _speeds(plan: Plan, console: Console | None, log: Log) -> Speeds:
    """Return the steps per minute of each variant and dataset; measure those that are not known.

    Raises:
        TrainingError: other processes use the machine.
    """
    jobs = plan.speed_jobs()
    if plan.request.speed is not None:
        return {(job.variant, str(job.factors["dataset"])): plan.request.speed for job in jobs}
    queue = JobQueue(jobs, lambda line: log(f"speed: {line}"))
    found = environment()
    if not queue.finished and is_busy(found) and not plan.request.any_load:
        raise TrainingError(
            f"load average {found['load'][0]:.2f}: other processes use this machine, so the speed would be too low; "
            "wait a minute and try again, or give --any-load"
        )
    results = run_sequential(queue, lambda job: _measure(job, plan.request.script, console))
    pairs = zip(jobs, results, strict=True)
    return {(job.variant, str(job.factors["dataset"])): 60 * r["steps"] / r["seconds"] for job, r in pairs}


def _measure(job: Job, script: Path | None, console: Console | None) -> JobResult:
    """Execute a short timed run from its start; its weights are removed."""
    job.save()
    folder = job.folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    if job.variant == LOOP:
        assert script is not None
        steps = run_loop(script, job.call, job.length, job.folder / DETECTIONS_NAME)["steps"]
        seconds = 60 * job.length["minutes"]
    else:
        outcome = finetune(out=folder, console=console, report=False, minutes=job.length["minutes"], **job.call)
        steps, seconds = outcome.train.step, outcome.train.seconds
        shutil.rmtree(folder, ignore_errors=True)
    return write_result(job, {"steps": steps, "seconds": seconds, "load": _load()})


def _load() -> list[float]:
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else []


def _run(job: Job, script: Path | None, console: Console | None) -> dict[str, Any]:
    """Execute or resume a run, and evaluate it."""
    if job.variant != LOOP:
        return execute(job, console)
    assert script is not None
    job.save()
    detections = job.folder / DETECTIONS_NAME
    found = run_loop(script, job.call, job.length, detections)
    metrics = evaluate_files(Path(job.val[0]), detections)
    return write_result(job, {**found, "numbers": metrics.numbers(), "per_class": metrics.per_class})


def _write(report: QualityReport, out: Path, console: Console | None) -> None:
    write_report(report, out)
    if console is not None:
        console.print(report.section(), markup=False, highlight=False)
        console.print(f"section: {out / SECTION_NAME}, plot: {out / PLOT_NAME}", markup=False, highlight=False)
