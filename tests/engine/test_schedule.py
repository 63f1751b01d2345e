"""Golden values of the learning-rate factor, and the errors of wrong settings."""

from typing import Any

import pytest
import torch

from tldet.engine.schedule import Budget, ScheduleSettings, factor, falls_due, set_rates
from tldet.engine.state import TrainSettings
from tldet.errors import ConfigError

COCO_1X = {"epochs": 12, "warmup_steps": 500, "warmup_factor": 0.001, "policy": "multistep", "milestones": [8, 11]}
COSINE = {"steps": 100, "warmup_steps": 10, "warmup_factor": 0.0, "policy": "cosine", "final_factor": 0.1}
MINUTES = {"minutes": 4, "warmup_steps": 10, "warmup_factor": 0.1, "policy": "multistep", "milestones": [2, 3]}


@pytest.mark.parametrize(
    ("settings", "step", "total", "expected"),
    [
        (COCO_1X, 0, 87960, 0.001),
        (COCO_1X, 250, 87960, 0.5005),
        (COCO_1X, 500, 87960, 1.0),
        (COCO_1X, 8 * 7330 - 1, 87960, 1.0),
        (COCO_1X, 8 * 7330, 87960, 0.1),
        (COCO_1X, 11 * 7330 - 1, 87960, 0.1),
        (COCO_1X, 11 * 7330, 87960, 0.01),
        (COSINE, 0, 100, 0.0),
        (COSINE, 5, 100, 0.5),
        (COSINE, 10, 100, 1.0),
        (COSINE, 55, 100, 0.55),
        (COSINE, 100, 100, 0.1),
        (COSINE, 5, 20, 1.0),  # warm-up takes a quarter of a short run at most
        (MINUTES, 5, None, 0.55),  # not yet measured: warm-up, then 1
        (MINUTES, 10**6, None, 1.0),
        (MINUTES, 99, 200, 1.0),
        (MINUTES, 100, 200, 0.1),
        (MINUTES, 150, 200, 0.01),
        ({"steps": 10, "warmup_steps": 0, "policy": "constant"}, 9, 10, 1.0),
        ({"steps": 60, "policy": "multistep", "milestones": [40], "warmup_steps": 0, "gamma": 0.5}, 40, 60, 0.5),
    ],
)
def test_factor(settings: dict[str, Any], step: int, total: int | None, expected: float) -> None:
    assert factor(ScheduleSettings(**settings), step, total, 7330) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("length", "expected"), [({"epochs": 2.5}, 10), ({"steps": 7}, 7), ({"minutes": 1}, None), ({"epochs": 0.01}, 1)]
)
def test_total_steps(length: dict[str, Any], expected: int | None) -> None:
    assert ScheduleSettings(**length).total_steps(4) == expected


def test_rates_multiply_each_groups_first_one() -> None:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": 0.1}, {"params": [torch.zeros(1)], "lr": 0.01}])
    assert set_rates(optimizer, 0.5) == pytest.approx(0.05)
    assert set_rates(optimizer, 0.1) == pytest.approx(0.01)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.001])


@pytest.mark.parametrize(
    ("every", "per_epoch", "expected"),
    [
        (1.0, 4, [4, 8, 12]),
        (0.5, 4, [2, 4, 6, 8, 10, 12]),
        (2, 2.5, [5, 10]),
        (0.1, 4, list(range(1, 13))),
        (None, 4, []),
    ],
)
def test_falls_due(every: float | None, per_epoch: float, expected: list[int]) -> None:
    assert [step for step in range(1, 13) if falls_due(step, every, per_epoch)] == expected


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "exactly one of epochs, steps and minutes"),
        ({"epochs": 1, "steps": 5}, "exactly one"),
        ({"epochs": 0}, "schedule.epochs"),
        ({"minutes": float("inf")}, "schedule.minutes"),
        ({"steps": 5, "warmup_steps": -1}, "schedule.warmup_steps"),
        ({"steps": 5, "gamma": 2}, "schedule.gamma"),
        ({"steps": 5, "policy": "polynomial"}, "schedule.policy"),
        ({"steps": 5, "policy": "multistep"}, "schedule.milestones is needed"),
        ({"steps": 5, "policy": "multistep", "milestones": [3, 2]}, "schedule.milestones must be increasing"),
        ({"steps": 5, "milestones": [3]}, "is for policy 'multistep' only"),
    ],
)
def test_wrong_schedule_names_its_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        ScheduleSettings(**settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("accumulate", 0), ("seed", -1), ("max_keep_ckpts", 1), ("patience", 0), ("log_every", 0)],
        *[
            ("clip_norm", 0.0),
            ("ema", 1.0),
            ("validate_every", 0),
            ("checkpoint_every", -1.0),
            ("min_gain", -0.1),
            ("precision", "tf32"),
        ],
    ],
)
def test_wrong_training_setting_names_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"training.{key} "):
        TrainSettings(**{key: value})


@pytest.mark.parametrize("seconds_per_step", [0.05, 0.5, 2.0])
def test_warm_up_under_a_budget_of_minutes_does_not_jump(seconds_per_step: float) -> None:
    """The rate before the number of steps is known is that of a run of as many steps from the start."""
    schedule, budget = ScheduleSettings(minutes=1, warmup_steps=500), Budget(60)
    total, rates = None, []
    for step in range(40):
        expected = budget.expected(step, step * seconds_per_step)
        rates.append(factor(schedule, step, total, 10, expected))
        if total is None:
            total = budget.fix(step + 1, (step + 1) * seconds_per_step)
        if step + 1 >= round(60 / seconds_per_step):
            break
    known = ScheduleSettings(steps=round(60 / seconds_per_step), warmup_steps=500)
    wanted = [factor(known, step, round(60 / seconds_per_step), 10) for step in range(len(rates))]
    assert rates == pytest.approx(wanted, rel=0.2, abs=0.01)
