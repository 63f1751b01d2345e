"""``tldet fewshot``, start to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.system.locks import locked
from tldet.system.output import write_json
from tldet.workflows.fewshot.base import as_given, base_job, check_variants
from tldet.workflows.fewshot.plan import FewShot, Setup, prepare_experiment, shot_jobs
from tldet.workflows.fewshot.second import open_base, second_phase
from tldet.workflows.fewshot.summary import FewShotReport, groups
from tldet.workflows.study.data import StudyConfig
from tldet.workflows.study.execute import execute, finetuned
from tldet.workflows.study.job_queue import Matrix, Result, run_here

if TYPE_CHECKING:
    from rich.console import Console

RESULTS_NAME = "fewshot.json"  # in the experiment's folder


def fewshot(config: StudyConfig, asked: FewShot, console: Console | None = None) -> FewShotReport:
    """Train on the base classes, fine-tune on K shots of all classes, measure both groups apart (Wang et al. 2020).

    Called again with the same arguments, it continues: finished runs are kept, and variants, shots and seeds may
    be added. All numbers are those of the weights at the end of a run: to choose among checkpoints takes labels that
    few-shot learning does not have.

    Args:
        config: data, base training, seeds (of the draw of the shots and of the training on them).
        asked: novel classes, shots, variants.
        console: shows progress and the table.

    Raises:
        TldetError: the data, a name or a value is wrong, or a run failed.
        KeyboardInterrupt: the message says how to go on.
    """
    with locked(config.out):
        report = _made(config, asked, console)
        if console is not None:
            console.print(report.table())
        write_json(config.out / RESULTS_NAME, report.to_dict(), indent=1)
    if console is not None:
        console.print(f"numbers: {config.out / RESULTS_NAME}")
    return report


def _made(config: StudyConfig, asked: FewShot, console: Console | None) -> FewShotReport:
    """Train and evaluate what is missing."""
    setup = prepare_experiment(config, replace(asked, novel=tuple(dict.fromkeys(asked.novel))))
    check_variants(setup)
    say = (lambda line: console.rule(line)) if console is not None else (lambda _: None)
    learn = finetuned if asked.base is None else as_given
    before = run_here(Matrix([base_job(setup)], say), lambda job: execute(job, console, learn))[0]
    start = Path(before["checkpoint"])
    open_base(start, setup.asked.novel, setup.base_classes)  # it may have gone since
    jobs = shot_jobs(setup, start)
    runs = run_here(Matrix(jobs, say), lambda job: execute(job, console, second_phase))
    return _report(setup, before, runs)


def _report(setup: Setup, before: Result, runs: list[Result]) -> FewShotReport:
    names = (setup.base_classes, setup.asked.novel)
    factors = ("variant", "shots", "seed")
    return FewShotReport(
        groups(before, *names), [{**{f: run[f] for f in factors}, **groups(run, *names)} for run in runs]
    )
