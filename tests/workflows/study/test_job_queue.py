"""The order of the runs, what is done once, and what happens when one of them fails or a person stops it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tldet.errors import DataError, TrainingError
from tldet.system.out_of_memory import OutOfMemoryError
from tldet.workflows.study.job import Job
from tldet.workflows.study.job_queue import JobQueue, run_parallel, run_sequential
from tldet.workflows.study.workers import _kind_of

from .conftest import pretend


class Runner:
    """Counts its runs; the first run of a variant determines the number of steps."""

    def __init__(self) -> None:
        self.executed: list[Job] = []

    def __call__(self, job: Job) -> dict[str, Any]:
        self.executed.append(job)
        return pretend(job, {"a": 100, "b": 40}[job.variant] + 7 * len(self.executed))


def grid(make_job: Any, seeds: int = 3, **more: Any) -> list[Job]:
    return [make_job(variant, seed, **more) for seed in range(seeds) for variant in ("a", "b")]


def test_minutes_become_steps_once_a_variant(make_job: Any) -> None:
    runner = Runner()
    results = run_sequential(JobQueue(grid(make_job)), runner)
    assert [job.steps for job in runner.executed] == [None, None, 107, 54, 107, 54]
    assert [result["steps"] for result in results] == [107, 54] * 3


def test_a_variant_whose_first_steps_are_cheap_takes_anothers_number(make_job: Any) -> None:
    runner = Runner()
    jobs = [replace(job, timed_by="b") if job.variant == "a" else job for job in grid(make_job, 2)]
    run_sequential(JobQueue(jobs), runner)
    assert [(job.variant, job.steps) for job in runner.executed] == [("b", None), ("a", 47), ("a", 47), ("b", 47)]


def test_steps_and_epochs_are_the_same_for_all(make_job: Any) -> None:
    runner = Runner()
    run_sequential(JobQueue(grid(make_job, length={"epochs": 4})), runner)
    assert {job.steps for job in runner.executed} == {None}


def test_finished_runs_are_not_repeated(make_job: Any) -> None:
    runner, lines = Runner(), []
    first = run_sequential(JobQueue(grid(make_job, 2)), runner)
    again = run_sequential(JobQueue(grid(make_job, 3), lines.append), runner)
    assert len(runner.executed) == 6, "only the third seed was new"
    assert [job.steps for job in runner.executed[4:]] == [107, 54], "the steps were timed before"
    assert again[:4] == first
    assert lines[0] == "4 of 6 runs are finished already"
    assert lines[1].startswith("run 5/6: a, fraction 1, seed 2")


def test_progress_shows_the_remaining_time(make_job: Any) -> None:
    now, lines = [0.0], []

    def slow(job: Job) -> dict[str, Any]:
        now[0] += 90
        return pretend(job)

    run_sequential(JobQueue(grid(make_job, 2), lines.append, lambda: now[0]), slow)
    assert lines[0] == "run 1/4: a, fraction 1, seed 0"
    assert lines[3] == "run 4/4: b, fraction 1, seed 1, 3 finished, eta 1:30"
    assert "eta 3:00" in lines[2]


def test_the_remaining_time_counts_long_runs_by_their_cost(make_job: Any) -> None:
    now, lines = [0.0], []

    def slow(job: Job) -> dict[str, Any]:
        now[0] += 20 * job.length["steps"]
        return pretend(job)

    jobs = [make_job("a", seed, length={"steps": steps}) for seed, steps in enumerate((1, 3, 10))]
    run_sequential(JobQueue(jobs, lines.append, lambda: now[0], lambda job: job.length["steps"]), slow)
    assert lines[1].endswith("eta 4:20")
    assert lines[2].endswith("eta 3:20")


def test_a_result_of_other_settings_is_refused_before_any_run(make_job: Any) -> None:
    run_sequential(JobQueue(grid(make_job, 1)), Runner())
    with pytest.raises(TrainingError, match=r"length.minutes was 3.0, now 5.0"):
        JobQueue(grid(make_job, 2, length={"minutes": 5.0}))


def test_a_run_that_fails_is_named_and_the_others_stay(make_job: Any) -> None:
    runner = Runner()

    def fail(job: Job) -> dict[str, Any]:
        if job.variant == "b":
            raise DataError("x.jpg: is broken")
        return runner(job)

    with pytest.raises(DataError, match=r"^run b, fraction 1, seed 0: x.jpg: is broken \(after a fix, the same"):
        run_sequential(JobQueue(grid(make_job)), fail)
    run_sequential(JobQueue(grid(make_job)), runner)
    assert [job.name[0] for job in runner.executed] == ["a", "b", "a", "b", "a", "b"]


def test_a_run_out_of_memory_is_named_in_one_process_and_in_several(make_job: Any) -> None:
    def fail(job: Job) -> dict[str, Any]:
        raise OutOfMemoryError("out of memory on cuda:0 in evaluation")

    with pytest.raises(
        TrainingError, match=r"^run a, fraction 1, seed 0: out of memory on cuda:0 in evaluation \(after a fix"
    ):
        run_sequential(JobQueue(grid(make_job, 1)), fail)
    assert [_kind_of(one) for one in (OutOfMemoryError("x"), DataError("x"))] == ["TrainingError", "DataError"]


def test_stopping_explains_how_to_resume(make_job: Any) -> None:
    runner = Runner()

    def stop(job: Job) -> dict[str, Any]:
        if len(runner.executed) == 3:
            raise KeyboardInterrupt("stopped after step 12")
        return runner(job)

    with pytest.raises(KeyboardInterrupt, match="3 of 6 runs are finished, the same command resumes the rest"):
        run_sequential(JobQueue(grid(make_job)), stop)
    assert len(run_sequential(JobQueue(grid(make_job)), runner)) == 6
    assert len(runner.executed) == 6


class Beside:
    """Runs that take a few looks to end; records which were under way together."""

    def __init__(self, looks: int = 2) -> None:
        self.looks, self.together = looks, list[list[str]]()
        self.live: dict[str, Any] = {}
        self.slots: list[int] = []
        self.stopped: list[str] = []

    def start(self, job: Job, slot: int) -> Any:
        owner = self

        class Running:
            left = owner.looks

            def poll(self) -> dict[str, Any] | None:
                self.left -= 1
                if self.left:
                    return None
                del owner.live[job.name]
                return pretend(job, 100 if job.variant == "a" else 40)

            def ask_to_stop(self) -> None:
                owner.stopped.append(f"ask {job.name}")

            def wait(self) -> None:
                owner.stopped.append(job.name)

        self.live[job.name] = job
        self.slots.append(slot)
        self.together.append(sorted(self.live))
        return Running()


def test_several_at_a_time_once_the_steps_are_known(make_job: Any) -> None:
    beside = Beside()
    results = run_parallel(JobQueue(grid(make_job)), beside.start, 4, wait=lambda: None)
    assert [result["steps"] for result in results] == [100, 40] * 3
    names = ["a, fraction 1, seed 0", "b, fraction 1, seed 0"]
    assert beside.together[1] == names, "each variant's first run alone"
    assert max(map(len, beside.together)) == 4
    assert sorted(set(beside.slots)) == [0, 1, 2, 3]


def test_the_others_are_saved_when_one_fails_or_a_person_stops(make_job: Any) -> None:
    beside = Beside(looks=5)

    def fail_in(turns: int, error: BaseException) -> Any:
        left = [turns]

        def wait() -> None:
            left[0] -= 1
            if not left[0]:
                raise error

        return wait

    jobs = grid(make_job, length={"steps": 3})
    with pytest.raises(KeyboardInterrupt, match="0 of 6 runs are finished, the same command"):
        run_parallel(JobQueue(jobs), beside.start, 2, wait=fail_in(2, KeyboardInterrupt()))
    names = ["a, fraction 1, seed 0", "b, fraction 1, seed 0"]
    assert beside.stopped == [*(f"ask {name}" for name in names), *names], "all are asked before one is waited for"

    class Fails:
        def poll(self) -> None:
            raise TrainingError("loss is nan")

        def ask_to_stop(self) -> None:
            beside.stopped.append("ask failed one")

        def wait(self) -> None:
            beside.stopped.append("failed one")

    beside.stopped.clear()
    starts = [beside.start, lambda *_: Fails()]
    with pytest.raises(TrainingError, match="run b, fraction 1, seed 0: loss is nan"):
        run_parallel(JobQueue(jobs), lambda job, slot: starts[slot](job, slot), 2, wait=lambda: None)
    assert beside.stopped == ["ask a, fraction 1, seed 0", "ask failed one", "a, fraction 1, seed 0", "failed one"]
