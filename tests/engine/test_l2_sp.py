"""The pull towards the start."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tldet import checkpoint
from tldet.engine.trainer import Trainer
from tldet.errors import ConfigError, TrainingError
from tldet.transfer.l2_sp import KEY, L2SP, L2SPSettings, regularized_names, saved_initial_weights
from tldet.transfer.param_groups import build_optimizer

PULLED = ["conv.weight", "table"]


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_a_step_is_one_down_loss_and_penalty_without_weight_decay(kind: str) -> None:
    """Against the penalty in the loss, where autograd finds its gradient."""
    torch.manual_seed(0)
    model, start = nn.Linear(3, 2), nn.Linear(3, 2)
    other, x = nn.Linear(3, 2), torch.randn(5, 3)
    with torch.no_grad():
        for a, b in zip(other.parameters(), model.parameters(), strict=True):
            a.copy_(b)
    section = {"type": kind, "lr": 0.1, "weight_decay": 0.5}
    optimizer = build_optimizer(model, section, 1, ["weight"])
    pull = L2SP(model, ["weight"], 0.3, {"weight": start.weight.detach()})
    pull.before_train(SimpleNamespace(optimizer=optimizer))
    theirs: Any = torch.optim.SGD if kind == "SGD" else torch.optim.AdamW
    more = {"momentum": 0.9} if kind == "SGD" else {}
    groups = [{"params": [other.weight], "weight_decay": 0.0}, {"params": [other.bias], "weight_decay": 0.5}]
    reference = theirs(groups, lr=0.1, **more)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        reference.zero_grad()
        penalty = 0.15 * (other.weight - start.weight.detach()).square().sum()
        (other(x).square().mean() + penalty).backward()
        reference.step()
    torch.testing.assert_close(list(model.parameters()), list(other.parameters()))


def test_frozen_weights_are_not_regularized() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    pull = L2SP(model, ["weight", "bias"], 1.0, {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)})
    pull.before_train(SimpleNamespace(optimizer=optimizer))
    weight = model.weight.detach().clone()
    model.weight.requires_grad_(False)
    model(torch.zeros(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(model.weight, weight)
    optimizer.zero_grad()
    optimizer.step()  # nothing has a gradient


def build(toy: ModuleType, folder: Path, *, resume: bool = False, stop: int | None = None) -> Trainer:
    torch.manual_seed(0)
    model = toy.ToyModel()
    pull = L2SP(model, PULLED, 0.5, saved_initial_weights(folder) if resume else None)
    hooks = [pull, *([toy.Stop(stop)] if stop else [])]
    return toy.build(folder, model=model, hooks=hooks, steps=24, ema=None)  # type: ignore[no-any-return]


def test_a_resumed_run_is_regularized_towards_the_same_weights(toy: ModuleType, tmp_path: Path) -> None:
    whole = build(toy, tmp_path / "whole")
    first = {name: whole.model.get_parameter(name).detach().clone() for name in PULLED}
    whole.run()
    build(toy, tmp_path / "two", stop=11).run()
    build(toy, tmp_path / "two", resume=True).run(resume=True)
    start = checkpoint.load_checkpoint(tmp_path / "two" / "step_00000024.pt")["training"][KEY]
    assert all(torch.equal(start[name], first[name]) for name in PULLED)
    assert toy.last(tmp_path / "two", 24) == toy.last(tmp_path / "whole", 24)
    assert checkpoint.load_checkpoint(tmp_path / "two" / "best.pt")["training"] is None, "who uses it needs no start"


def test_a_run_without_l2_sp_stores_no_reference_weights(toy: ModuleType, tmp_path: Path) -> None:
    assert saved_initial_weights(tmp_path) == {}
    toy.build(tmp_path, steps=2).run()
    with pytest.raises(
        TrainingError, match=r"step_00000002.pt: contains no initial weights, the run was trained without l2_sp"
    ):
        saved_initial_weights(tmp_path)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.backbone.bias.requires_grad_(False)


def test_regularized_weights_are_trainable_and_pretrained() -> None:
    model = Model()
    carried = ["backbone.weight", "backbone.bias", "head.weight", "head.running_mean"]
    assert regularized_names(model, carried, L2SPSettings(0.1)) == ["backbone.weight"]
    assert regularized_names(model, carried, L2SPSettings(0.1, on="all")) == ["backbone.weight", "head.weight"]
    with pytest.raises(ConfigError, match=r"l2_sp: the backbone has no trainable pretrained weights"):
        regularized_names(model, ["head.weight"], L2SPSettings(0.1))
    with pytest.raises(ConfigError, match=r"l2_sp.alpha must be above 0, not 0"):
        L2SPSettings(0)
