"""The running means that losses are divided by."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tldet.models.losses import LossNormalizers
from tldet.models.normalizers import RunningNormalizers


def model(kind: str = "running") -> nn.Module:
    part = LossNormalizers(kind, positives=100.0, weights=50.0)  # type: ignore[arg-type]
    return nn.ModuleDict({"head": part})


def test_without_training_the_divisor_is_the_count_of_the_batch() -> None:
    part = LossNormalizers("running", positives=100.0)
    assert part.divisor("positives", 7, 2) == 7
    assert part.divisor("positives", 0, 2) == 1
    assert part.divisor("positives", torch.tensor(0.25), 2) == 1
    assert part.divisor("positives", torch.tensor(0.25), 2, batch=torch.tensor(0.25)) == 0.25


def test_the_divisor_is_the_mean_of_earlier_steps() -> None:
    whole = model()
    part = whole["head"]  # type: ignore[index]
    running = RunningNormalizers(whole)
    with running.counting():
        assert part.divisor("positives", 30, 2) == 200, "100 per image before the first step"
        assert part.divisor("positives", 10, 2) == 200, "a micro-batch does not see the one before it"
        part.divisor("weights", torch.tensor(6.0), 4)
    counts = [float(one) for one in running.counted(torch.device("cpu"))]
    assert counts == [40, 6]
    running.update(counts, 4)
    assert part.mean("positives") == pytest.approx((0.9 * 100 + 10) / 1.9)
    assert part.mean("weights") == pytest.approx((0.9 * 50 + 1.5) / 1.9)
    for _ in range(100):
        running.update([40, 6], 4)
    assert part.mean("positives") == pytest.approx(10, rel=1e-3)


def test_evaluation_is_not_counted() -> None:
    whole = model()
    running = RunningNormalizers(whole)
    with running.counting():
        pass
    whole["head"].divisor("positives", 30, 2)  # type: ignore[index]
    assert [float(one) for one in running.counted(torch.device("cpu"))] == [0, 0]


def test_a_step_without_positives_does_not_change_the_mean() -> None:
    running = RunningNormalizers(model())
    before = running.state_dict()
    running.update([0.0, 0.0], 4)
    assert running.state_dict() == before
    running.update([8.0, 0.0], 4)
    assert running.state_dict()["head"]["sums"] == {"positives": 92.0, "weights": 50.0}


def test_the_state_is_saved_and_restored() -> None:
    running, other = RunningNormalizers(model()), RunningNormalizers(model())
    running.update([12.0, 3.0], 4)
    other.load_state_dict(running.state_dict())
    assert other.state_dict() == running.state_dict()
    for wrong in ({}, {"head": {"sums": {"positives": 1.0}}}):
        with pytest.raises(ValueError, match="loss normalizers"):
            other.load_state_dict(wrong)
    assert not RunningNormalizers(model("batch")).parts
    assert not model().state_dict(), "no weights of the model"


def test_validation_uses_a_slower_mean() -> None:
    """Losses of validations are compared: the images of the last few steps must not move them."""
    whole = model()
    part, running = whole["head"], RunningNormalizers(whole)  # type: ignore[index]
    whole.eval()
    assert part.mean("positives") == 100, "no step has been counted"
    random, validated, trained = torch.Generator().manual_seed(0), [], []
    for step in range(400):
        running.update([float(torch.randint(0, 160, (), generator=random)), 1.0], 4)
        if step >= 200:
            validated.append(whole.eval()["head"].mean("positives"))  # type: ignore[index]
            trained.append(whole.train()["head"].mean("positives"))  # type: ignore[index]
    assert max(validated) < 1.2 * min(validated)
    assert max(trained) > 1.6 * min(trained), "else the test would show nothing"
    assert sum(validated) == pytest.approx(sum(trained), rel=0.05)


@pytest.mark.parametrize("count", [0.0, math.inf, math.nan])
def test_counts_that_are_not_finite_are_left_out(count: float) -> None:
    running = RunningNormalizers(model())
    before = running.state_dict()
    running.update([count, count], 4)
    assert running.state_dict() == before
