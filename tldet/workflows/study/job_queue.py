"""The runs of a study, one after the other or one a GPU, each made once.

What is finished is recognized by its result and not made again; what was interrupted goes on; a study that is called
again with more seeds makes only what is missing.

A budget in minutes becomes a number of steps once per variant: the first run of a variant measures it, and its other
runs take as many steps. Variants then differ in speed, as they should, without the noise of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from tldet.engine.progress import duration
from tldet.errors import TldetError
from tldet.text import are, counted
from tldet.workflows.study.job import Job, refuse_shared_folders

Result = dict[str, Any]


class Running(Protocol):
    """A run under way in a process of its own."""

    def poll(self) -> Result | None:
        """The result once it is there; a TldetError where the run failed."""

    def ask_to_stop(self) -> None:
        """Have it save and end."""

    def wait(self) -> None:
        """Return when it has ended."""


@dataclass
class Matrix:
    """What of a study is done, what is to be done, and in which order.

    Attributes:
        jobs: all of it, in the order wanted.
        say: shows a line.
        clock: seconds.
    """

    jobs: Sequence[Job]
    say: Callable[[str], None] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    results: dict[int, Result] = field(default_factory=dict)
    _begun: set[int] = field(default_factory=set)
    _measuring: set[str] = field(default_factory=set)
    _spent: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take in what is finished.

        Raises:
            ConfigError: two runs have the same folder.
            TrainingError: a result there is one of other settings.
        """
        refuse_shared_folders(self.jobs)
        for number, job in enumerate(self.jobs):
            if (found := job.result()) is not None:
                self.results[number] = found
        self._begun |= set(self.results)
        if self.results:
            self.say(
                f"{len(self.results)} of {counted(len(self.jobs), 'run')} {are(len(self.results))} finished already"
            )

    def next_job(self) -> tuple[int, Job] | None:
        """The first run that can begin now and its length in steps, if its variant has one; None if none can."""
        for number, job in enumerate(self.jobs):
            if number in self._begun or job.variant in self._measuring:
                continue
            paced = self._with_steps(job)
            if paced.steps is not None or job.pace is None or "minutes" not in job.length:
                return number, paced
        return None

    def begin(self, number: int, job: Job) -> float:
        """Mark a run as under way; the time it began at."""
        self._begun.add(number)
        if "minutes" in job.length and job.steps is None:
            self._measuring.add(job.variant)
        self.say(f"run {number + 1}/{len(self.jobs)}: {job.name}{self._eta()}")
        return self.clock()

    def finish(self, number: int, result: Result, begun: float) -> None:
        """Take in the result of a run."""
        self.results[number] = result
        self._measuring.discard(self.jobs[number].variant)
        self._spent.append(self.clock() - begun)

    @property
    def finished(self) -> bool:
        """Whether every run has its result."""
        return len(self.results) == len(self.jobs)

    def ordered(self) -> list[Result]:
        """The results in the order of the jobs."""
        return [self.results[number] for number in sorted(self.results)]

    def _with_steps(self, job: Job) -> Job:
        pace = job.pace or job.variant
        steps = next((r["steps"] for n, r in sorted(self.results.items()) if self.jobs[n].variant == pace), None)
        return replace(job, steps=steps) if "minutes" in job.length else job

    def _eta(self) -> str:
        if not self._spent:
            return ""
        left = (len(self.jobs) - len(self.results)) * sum(self._spent) / len(self._spent)
        return f", {len(self.results)} finished, eta {duration(left)}"


def run_here(matrix: Matrix, run: Callable[[Job], Result]) -> list[Result]:
    """Make every run that is missing, one after the other, in this process.

    Args:
        matrix: the study.
        run: makes a run, or goes on with it, and returns what it found; it has written it down too.

    Returns:
        The results of all runs, those of before included.

    Raises:
        TldetError: a run failed; it is named. What is finished stays.
        KeyboardInterrupt: the message says how to go on.
    """
    while (found := matrix.next_job()) is not None:
        number, job = found
        begun = matrix.begin(number, job)
        try:
            matrix.finish(number, run(job), begun)
        except TldetError as error:
            raise failed(job, error) from None
        except KeyboardInterrupt:
            raise interrupted(matrix) from None
    return matrix.ordered()


def run_beside(
    matrix: Matrix,
    start: Callable[[Job, int], Running],
    slots: int,
    *,
    wait: Callable[[], None] = lambda: time.sleep(0.5),
) -> list[Result]:
    """Make every run that is missing in processes of their own, so many at a time.

    Args:
        matrix: the study.
        start: starts a run in the slot of the number given.
        slots: how many at a time.
        wait: between two looks at them.

    Returns:
        The results of all runs, those of before included.

    Raises:
        TldetError: a run failed; it is named. The others under way are saved and ended.
        KeyboardInterrupt: all were saved; the message says how to go on.
    """
    running: dict[int, tuple[int, Job, float, Running]] = {}  # slot -> number, job, when it began, run
    try:
        while not matrix.finished:
            for slot in sorted(set(range(slots)) - set(running)):
                if (found := matrix.next_job()) is not None:
                    number, job = found
                    begun = matrix.begin(number, job)
                    running[slot] = (number, job, begun, start(job, slot))
            for slot, one in list(running.items()):
                if _look(matrix, one):
                    del running[slot]
            if running:
                wait()
    except KeyboardInterrupt:
        raise interrupted(matrix) from None
    finally:
        for *_, run in running.values():
            run.ask_to_stop()  # all at once: a job manager waits for half a minute, not for one after the other
        for *_, run in running.values():
            run.wait()
    return matrix.ordered()


def _look(matrix: Matrix, one: tuple[int, Job, float, Running]) -> bool:
    """Whether a run has ended; its result is then taken in."""
    number, job, begun, run = one
    try:
        result = run.poll()
    except TldetError as error:
        raise failed(job, error) from None
    if result is not None:
        matrix.finish(number, result, begun)
    return result is not None


def failed(job: Job, error: TldetError) -> TldetError:
    """The error of a run, with its name; the runs before it stay."""
    return type(error)(f"run {job.name}: {error} (once that is repaired, the same study command goes on)")


def interrupted(matrix: Matrix) -> KeyboardInterrupt:
    """What to tell a person who stopped a study."""
    done = f"{len(matrix.results)} of {counted(len(matrix.jobs), 'run')} {are(len(matrix.results))} finished"
    return KeyboardInterrupt(f"study stopped; {done}, the same command continues with the rest")
