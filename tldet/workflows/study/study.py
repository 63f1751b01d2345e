"""``tldet study``: start, backbone or data compared at an equal budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tldet.config import option_value, parse_options
from tldet.errors import ConfigError, DataError
from tldet.evaluation.power_law import FARTHEST
from tldet.system.locks import locked
from tldet.workflows.study.data import StudyConfig
from tldet.workflows.study.execute import execute, up_to_date
from tldet.workflows.study.job_queue import Matrix, Result, run_beside, run_here
from tldet.workflows.study.plan import Plan, make_plan
from tldet.workflows.study.report import PLOT_NAME, RESULTS_NAME, StudyReport, add_curve, make_report, show_study, write
from tldet.workflows.study.variants import REFERENCE, VARIANTS, Variant, backbone_variants, transfer_variants
from tldet.workflows.study.workers import Worker, gpus

if TYPE_CHECKING:
    from rich.console import Console

FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0)  # of a learning curve
TIMES = (2, 4)  # as many images as there are, that a learning curve says something of


def study_transfer(
    config: StudyConfig,
    variants: Sequence[str] = tuple(VARIANTS),
    fractions: Sequence[float] = (1.0,),
    console: Console | None = None,
) -> StudyReport:
    """Compare ways to start and to train.

    Args:
        config: data, budget, seeds.
        variants: names from :data:`tldet.workflows.study.variants.VARIANTS`.
        fractions: of the training images.
        console: shows progress and what was found.

    Raises:
        TldetError: the data, a name or a value is wrong, or a run failed.
        KeyboardInterrupt: the message says how to go on.
    """
    return _study("transfer", config, transfer_variants(variants), fractions, console)


def study_backbones(
    config: StudyConfig, names: Sequence[str], fractions: Sequence[float] = (1.0,), console: Console | None = None
) -> StudyReport:
    """Compare backbones in one recipe; the arguments and errors are those of :func:`study_transfer`."""
    if len(names) < 2:
        raise ConfigError(f"study backbones {' '.join(names)}: give two backbones or more to compare")
    return _study("backbones", config, backbone_variants(names, config.model), fractions, console)


def study_data(
    config: StudyConfig,
    fractions: Sequence[float] = FRACTIONS,
    predict: Sequence[int] = (),
    console: Console | None = None,
) -> StudyReport:
    """Measure AP by the number of training images, and expect what more would bring.

    Args:
        config: data, budget, seeds.
        fractions: of the training images; each seed draws other images, nested from fraction to fraction.
        predict: numbers of images to expect the AP of; twice and four times the most measured when empty.
        console: shows progress and what was found.

    Raises:
        TldetError: the data or a value is wrong, or a run failed.
        KeyboardInterrupt: the message says how to go on.
    """
    return _study("data", config, {REFERENCE: VARIANTS[REFERENCE]}, fractions, console, predict)


def _study(
    kind: str,
    config: StudyConfig,
    variants: Mapping[str, Variant],
    fractions: Sequence[float],
    console: Console | None,
    predict: Sequence[int] | None = None,
) -> StudyReport:
    with locked(config.out):
        plan = make_plan(kind, config, variants, fractions)
        numbers = None if predict is None else _numbers(plan, predict)
        chosen = option_value(parse_options(config.cfg_options), "training.device") is not None
        runs = _run(plan, console, here=chosen)
        results = [up_to_date(job, result) for job, result in zip(plan.jobs, runs, strict=True)]
        report = make_report(results, plan.truth)
        if numbers is not None:
            add_curve(report, numbers)
        if console is not None:
            show_study(report, console)
        write(report, config.out, plan.settings)
    if console is not None:
        out = config.out
        console.print(f"all numbers: {out / RESULTS_NAME}, drawn: {out / PLOT_NAME}", markup=False, highlight=False)
    return report


def _numbers(plan: Plan, predict: Sequence[int]) -> list[int]:
    """The numbers of images to expect the AP of; one too far is refused before the runs."""
    most = max(job.images for job in plan.jobs)
    for number in predict:
        if number > FARTHEST * most:
            raise DataError(
                f"--predict {number}: is more than {FARTHEST:g} times the number of training images, {most:,}"
            )
    return list(predict) or [times * most for times in TIMES]


def _run(plan: Plan, console: Console | None, *, here: bool) -> list[Result]:
    """Make all runs: side by side on several GPUs, unless the device is chosen (``here``), else one after the other."""
    say = (lambda line: console.rule(line)) if console is not None else (lambda _: None)
    matrix, devices = Matrix(plan.jobs, say), gpus()
    if len(devices) > 1 and not here:
        return run_beside(matrix, lambda job, slot: Worker(job, devices[slot]), len(devices))
    return run_here(matrix, lambda job: execute(job, console))
