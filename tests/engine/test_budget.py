"""A budget of minutes is converted once to a number of steps, by the speed of a fake clock."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tldet import checkpoint
from tldet.engine.schedule import Budget


class FakeClock:
    """Clock that advances only on a call."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "step_seconds", "expected_total", "fixed_at"),
    [
        (180, [5.0] + [0.7] * 200, 251, 42),  # a slow first step counts, but is no evidence of the speed
        (60, [0.01] * 1000, 6000, 903),  # fast steps are measured over a share of the budget
        (180, [4.0] * 20, 45, 11),  # slow ones until there are eight
        (10, [60.0], 1, 1),  # spent at once: one step
        (10, [3.0] * 9, 4, 4),
    ],
)
def test_fix(seconds: float, step_seconds: list[float], expected_total: int, fixed_at: int) -> None:
    budget, spent = Budget(seconds), 0.0
    for step, one in enumerate(step_seconds, start=1):
        spent += one
        total = budget.fix(step, spent)
        if total is not None:
            break
    assert (total, step) == (pytest.approx(expected_total, abs=1), pytest.approx(fixed_at, abs=1))


def run_with_fake_clock(
    toy: ModuleType, folder: Path, step_seconds: float, resume: bool = False, **changes: Any
) -> Any:
    """Loading a micro-batch takes half a step's time; evaluation and saving take long, and must not count."""
    clock = FakeClock()

    def batches(start: int) -> Any:
        clock.now += 1000.0  # starting workers
        for number, batch in enumerate(toy.toy_batches(start)):
            clock.now += step_seconds / 2 if number else 500.0
            yield batch

    def evaluate(model: Any) -> dict[str, float]:
        clock.now += 3000.0
        return toy.evaluate(model)

    trainer = toy.build(folder, minutes=1, batches=batches, evaluate=evaluate, clock=clock, **changes)
    return trainer.run(resume=resume)


def test_minutes_count_training_time_only(toy: ModuleType, tmp_path: Path) -> None:
    result = run_with_fake_clock(toy, tmp_path, 1.0)
    assert 59 <= result.step <= 60  # loading the first step's images is start-up
    assert result.seconds == pytest.approx(result.step, abs=1.1)
    assert result.reason == "finished"


def test_fixed_total_is_kept_on_resume(toy: ModuleType, tmp_path: Path) -> None:
    class Stop:
        def after_train_iter(self, runner: Any, batch_idx: int, **_: Any) -> None:
            if batch_idx + 1 == 20:
                runner.stop("enough")

        def __getattr__(self, name: str) -> Any:
            return lambda *_args, **_more: None

    first = run_with_fake_clock(toy, tmp_path, 1.0, hooks=[Stop()])
    assert (first.step, first.reason) == (20, "enough")
    total = checkpoint.load_checkpoint(tmp_path / "step_00000020.pt")["training"]["total"]
    resumed = run_with_fake_clock(toy, tmp_path, 7.0, resume=True)  # a slower machine now: the number stays
    assert resumed.step == total


def test_least_is_one_step(toy: ModuleType, tmp_path: Path) -> None:
    assert run_with_fake_clock(toy, tmp_path, 200.0).step == 1
