"""``tldet study``: compare initial weights, backbones, settings or dataset sizes at an equal training length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tldet.config import option_value, parse_options
from tldet.errors import ConfigError, DataError
from tldet.evaluation.power_law import FARTHEST
from tldet.system.locks import locked
from tldet.workflows.study.execute import execute, up_to_date
from tldet.workflows.study.job_queue import JobQueue, JobResult, run_parallel, run_sequential
from tldet.workflows.study.named import check_jobs, named_variants
from tldet.workflows.study.plan import StudyPlan, make_plan
from tldet.workflows.study.report import (
    PLOT_NAME,
    RESULTS_NAME,
    StudyReport,
    add_curve,
    make_study_report,
    show_study,
    write_study,
)
from tldet.workflows.study.request import (
    AugmentStudyRequest,
    BackboneStudyRequest,
    DataStudyRequest,
    StudyRequest,
    TransferStudyRequest,
    VariantStudyRequest,
)
from tldet.workflows.study.variants import REFERENCE, VARIANTS, Variant, backbone_variants, transfer_variants
from tldet.workflows.study.workers import Worker, gpus

if TYPE_CHECKING:
    from rich.console import Console

FACTORS = (2, 4)  # default predictions, as multiples of the number of training images


def study_transfer(request: TransferStudyRequest) -> StudyReport:
    """Compare initial weights and freezing.

    Raises:
        TldetError: the data, a name or a value is wrong, or a run failed.
        KeyboardInterrupt: the message explains how to resume.
    """
    return _study("transfer", request, transfer_variants(request.variants))


def study_backbones(request: BackboneStudyRequest) -> StudyReport:
    """Compare backbones in one recipe; see :func:`study_transfer` for errors."""
    names = request.variants
    if len(names) < 2:
        raise ConfigError(f"study backbones {' '.join(names)}: specify two or more backbones to compare")
    return _study("backbones", request, backbone_variants(names, request.model))


def study_data(request: DataStudyRequest) -> StudyReport:
    """Compute AP by number of training images and predict AP for more images.

    Each seed draws other images; smaller fractions are subsets of larger ones. See :func:`study_transfer` for errors.
    """
    return _study("data", request, {REFERENCE: VARIANTS[REFERENCE]}, request.predict)


def study_variants(request: VariantStudyRequest) -> StudyReport:
    """Compare variants with any settings; see :func:`study_transfer` for errors."""
    return _study("variants", request, named_variants(request.variants, request.model))


def study_augment(request: AugmentStudyRequest) -> StudyReport:
    """Compare augmentation presets; see :func:`study_transfer` for errors."""
    texts = [name if name == "recipe" else f"{name}=augment={name}" for name in request.variants]
    return _study("augment", request, named_variants(texts, request.model))


def _study(
    kind: str, request: StudyRequest, variants: Mapping[str, Variant], predict: Sequence[int] | None = None
) -> StudyReport:
    console = request.console
    with locked(request.folder):
        plan = make_plan(kind, request, variants)
        if kind in ("variants", "augment"):
            check_jobs(plan.jobs)
        numbers = None if predict is None else _numbers(plan, predict)
        chosen = option_value(parse_options(request.overrides()), "training.device") is not None
        runs = _run(plan, console, here=chosen)
        results = [up_to_date(job, result) for job, result in zip(plan.jobs, runs, strict=True)]
        report = make_study_report(results, plan.truth)
        if numbers is not None:
            add_curve(report, numbers)
        if console is not None:
            show_study(report, console)
        write_study(report, request.folder, plan.settings)
    if console is not None:
        out = request.folder
        console.print(f"results: {out / RESULTS_NAME}, plot: {out / PLOT_NAME}", markup=False, highlight=False)
    return report


def _numbers(plan: StudyPlan, predict: Sequence[int]) -> list[int]:
    """Return the numbers of images to predict the AP of, checked before the runs."""
    most = max(job.images for job in plan.jobs)
    for number in predict:
        if number > FARTHEST * most:
            raise DataError(f"--predict {number}: at most {FARTHEST:g} times the number of training images ({most:,})")
    return list(predict) or [factor * most for factor in FACTORS]


def _run(plan: StudyPlan, console: Console | None, *, here: bool) -> list[JobResult]:
    """Execute all runs: in parallel on several GPUs, or one after the other if the device is chosen (``here``)."""
    log = (lambda line: console.rule(line)) if console is not None else (lambda _: None)
    jobs, devices = JobQueue(plan.jobs, log), gpus()
    if len(devices) > 1 and not here:
        return run_parallel(jobs, lambda job, slot: Worker(job, devices[slot]), len(devices))
    return run_sequential(jobs, lambda job: execute(job, console))
