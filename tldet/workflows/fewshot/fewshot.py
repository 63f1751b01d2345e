"""``tldet fewshot``: train on base classes, then add novel classes from K objects each."""

from __future__ import annotations

from pathlib import Path

from tldet.system.locks import locked
from tldet.system.output import write_json
from tldet.workflows.fewshot.base import base_job, check_variants, given_base
from tldet.workflows.fewshot.plan import Setup, prepare_experiment, shot_jobs
from tldet.workflows.fewshot.request import FewShotRequest
from tldet.workflows.fewshot.second import open_base, second_phase
from tldet.workflows.fewshot.summary import FewShotReport, group_metrics
from tldet.workflows.requests import takes
from tldet.workflows.study.execute import execute, finetuned
from tldet.workflows.study.job_queue import JobQueue, JobResult, run_sequential

FEWSHOT_NAME = "fewshot.json"  # in the output directory


@takes(FewShotRequest)
def fewshot(request: FewShotRequest) -> FewShotReport:
    """Train on base classes, fine-tune on K shots of all classes, evaluate both groups (Wang et al. 2020).

    A further call with the same arguments resumes the experiment: finished runs are kept, and variants, shots and seeds
    may be added. All metrics are those of the last checkpoint of a run, because the choice of a checkpoint needs labels
    that few-shot learning does not have.

    Raises:
        TldetError: the data, a name or a value is wrong, or a run failed.
        KeyboardInterrupt: the message explains how to resume.
    """
    folder, console = request.folder, request.console
    with locked(folder):
        report = _executed(request)
        if console is not None:
            console.print(report.table())
        write_json(folder / FEWSHOT_NAME, report.to_dict(), indent=1)
    if console is not None:
        console.print(f"results: {folder / FEWSHOT_NAME}", markup=False, highlight=False)
    return report


def _executed(request: FewShotRequest) -> FewShotReport:
    """Execute the missing runs and collect all results."""
    setup, console = prepare_experiment(request), request.console
    check_variants(setup)
    log = (lambda line: console.rule(line)) if console is not None else (lambda _: None)
    train_base = finetuned if request.base is None else given_base
    base = run_sequential(JobQueue([base_job(setup)], log), lambda job: execute(job, console, train_base))[0]
    start = Path(base["checkpoint"])
    open_base(start, setup.novel, setup.base_classes)  # it may have been removed since
    jobs = JobQueue(shot_jobs(setup, start), log)
    return _report(setup, base, run_sequential(jobs, lambda job: execute(job, console, second_phase)))


def _report(setup: Setup, base: JobResult, runs: list[JobResult]) -> FewShotReport:
    names = (setup.base_classes, setup.novel)
    factors = ("variant", "shots", "seed")
    return FewShotReport(
        group_metrics(base, *names),
        [{**{key: run[key] for key in factors}, **group_metrics(run, *names)} for run in runs],
    )
