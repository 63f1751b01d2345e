"""Execution of the runs of a study, one after the other or one per GPU.

Finished runs are recognized by their results and not repeated; interrupted runs are resumed. A study that is called
again with more seeds executes only the missing runs.

Minutes become a number of steps once per variant: the first run of a variant determines the number of steps, and its
other runs use it. Variants then differ in speed, but not by random variation of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from tldet.engine.progress import duration
from tldet.errors import TldetError
from tldet.text import are, counted
from tldet.workflows.study.job import Job, refuse_shared_folders

JobResult = dict[str, Any]


class Process(Protocol):
    """A run in a process of its own."""

    def poll(self) -> JobResult | None:
        """Return the result of a finished run, else None; raise the TldetError of a failed run."""

    def ask_to_stop(self) -> None:
        """Let the run save its state and end."""

    def wait(self) -> None:
        """Wait until the process has ended."""


@dataclass
class JobQueue:
    """Queue of the runs of a study.

    Attributes:
        jobs: all runs in the order of execution.
        log: shows a line.
        clock: time in seconds.
        cost: duration of a run relative to others, for the estimate of the remaining time.
        results: results of finished runs by number.

    Raises:
        ConfigError: two runs have the same folder.
        TrainingError: there is a result of other settings.
    """

    jobs: Sequence[Job]
    log: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    cost: Callable[[Job], float] = lambda _: 1.0
    results: dict[int, JobResult] = field(default_factory=dict)
    _started: set[int] = field(default_factory=set)
    _timing: set[str] = field(default_factory=set)  # variants whose number of steps is being determined
    _seconds: float = 0.0  # of the runs that this queue has executed
    _cost: float = 0.0  # of these

    def __post_init__(self) -> None:
        refuse_shared_folders(self.jobs)
        for number, job in enumerate(self.jobs):
            if (result := job.result()) is not None:
                self.results[number] = result
        self._started |= set(self.results)
        if self.results:
            self.log(f"{self._finished_text()} already")

    def next_job(self) -> tuple[int, Job] | None:
        """Return number and job of the first run that can start now, with its steps if they are known; else None."""
        for number, job in enumerate(self.jobs):
            if number in self._started or job.variant in self._timing:
                continue
            timed = self._with_steps(job)
            if timed.steps is not None or job.timed_by is None or "minutes" not in job.length:
                return number, timed
        return None

    def start(self, number: int, job: Job) -> float:
        """Mark a run as started; return the time."""
        self._started.add(number)
        if "minutes" in job.length and job.steps is None:
            self._timing.add(job.variant)
        self.log(f"run {number + 1}/{len(self.jobs)}: {job.name}{self._eta()}")
        return self.clock()

    def finish(self, number: int, result: JobResult, started: float) -> None:
        """Store the result of a run."""
        self.results[number] = result
        self._timing.discard(self.jobs[number].variant)
        self._seconds += self.clock() - started
        self._cost += self.cost(self.jobs[number])

    @property
    def finished(self) -> bool:
        """True if every run has a result."""
        return len(self.results) == len(self.jobs)

    def ordered(self) -> list[JobResult]:
        """Return the results in the order of the jobs."""
        return [self.results[number] for number in sorted(self.results)]

    def interrupted(self) -> KeyboardInterrupt:
        """Return the interrupt with a message on how to resume."""
        return KeyboardInterrupt(f"study stopped; {self._finished_text()}, the same command resumes the rest")

    def _finished_text(self) -> str:
        count = len(self.results)
        return f"{count} of {counted(len(self.jobs), 'run')} {are(count)} finished"

    def _with_steps(self, job: Job) -> Job:
        variant = job.timed_by or job.variant
        steps = next((r["steps"] for n, r in sorted(self.results.items()) if self.jobs[n].variant == variant), None)
        return replace(job, steps=steps) if "minutes" in job.length else job

    def _eta(self) -> str:
        if not self._cost:
            return ""
        missing = [job for number, job in enumerate(self.jobs) if number not in self.results]
        left = sum(self.cost(job) for job in missing) * self._seconds / self._cost
        return f", {len(self.results)} finished, eta {duration(left)}"


def run_sequential(jobs: JobQueue, run: Callable[[Job], JobResult]) -> list[JobResult]:
    """Execute all missing runs in this process, one after the other.

    Args:
        jobs: the queue.
        run: executes or resumes a run, writes its result and returns it.

    Returns:
        The results of all runs, including earlier ones.

    Raises:
        TldetError: a run failed; the message names it. Finished runs are kept.
        KeyboardInterrupt: the message explains how to resume.
    """
    while (found := jobs.next_job()) is not None:
        number, job = found
        started = jobs.start(number, job)
        try:
            jobs.finish(number, run(job), started)
        except TldetError as error:
            raise failed(job, error) from None
        except KeyboardInterrupt:
            raise jobs.interrupted() from None
    return jobs.ordered()


class _Running(NamedTuple):
    """A run in a process: number, job, start time and process."""

    number: int
    job: Job
    started: float
    process: Process


def run_parallel(
    jobs: JobQueue,
    start: Callable[[Job, int], Process],
    slots: int,
    *,
    wait: Callable[[], None] = lambda: time.sleep(0.5),
) -> list[JobResult]:
    """Execute all missing runs in processes of their own.

    Args:
        jobs: the queue.
        start: starts a run in the slot with a number.
        slots: number of runs at a time.
        wait: called between two checks of the processes.

    Returns:
        The results of all runs, including earlier ones.

    Raises:
        TldetError: a run failed; the message names it. The other runs save their state and end.
        KeyboardInterrupt: all runs have saved their state; the message explains how to resume.
    """
    running: dict[int, _Running] = {}  # by slot
    try:
        while not jobs.finished:
            for slot in sorted(set(range(slots)) - set(running)):
                if (found := jobs.next_job()) is not None:
                    number, job = found
                    running[slot] = _Running(number, job, jobs.start(number, job), start(job, slot))
            for slot, one in list(running.items()):
                if _finished(jobs, one):
                    del running[slot]
            if running:
                wait()
    except KeyboardInterrupt:
        raise jobs.interrupted() from None
    finally:
        for one in running.values():
            one.process.ask_to_stop()  # all at once: a job manager waits for half a minute in total
        for one in running.values():
            one.process.wait()
    return jobs.ordered()


def _finished(jobs: JobQueue, one: _Running) -> bool:
    """Return True if a run is finished; its result is stored then."""
    try:
        result = one.process.poll()
    except TldetError as error:
        raise failed(one.job, error) from None
    if result is not None:
        jobs.finish(one.number, result, one.started)
    return result is not None


def failed(job: Job, error: TldetError) -> TldetError:
    """Return the error of a run with the name of the run."""
    return type(error)(f"run {job.name}: {error} (after a fix, the same command resumes)")
