"""Compilation: used only if faster, reverted if it fails, and off during the speed test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tldet.engine import precision
from tldet.engine.precision import Precision, measure_compiled
from tldet.models import compiling
from tldet.models.compiling import compile_if_faster, uncompiled


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Sequential:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path))
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def is_compiled(model: nn.Module) -> list[bool]:
    return [part._compiled_call_impl is not None for part in model.children()]


def timed(monkeypatch: pytest.MonkeyPatch, *found: float | Exception) -> list[bool]:
    """Passes that seem to take so long; which of them were compiled."""
    compiled, left = [], list(found)

    def seconds(_: Precision, model: nn.Module, __: object) -> float:
        compiled.append(all(is_compiled(model)))
        value = left.pop(0)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(precision, "step_seconds", seconds)
    return compiled


def chosen(model: nn.Module, trial: Callable[[], Any] = lambda: None) -> str:
    return compile_if_faster(model, *measure_compiled(model, trial, Precision(), "some work"))


@pytest.mark.parametrize(
    ("found", "kept", "message"),
    [
        ((1.0, 0.5), True, "torch.compile: on (step time: eager 1.00 s, compiled 0.50 s)"),
        ((1.0, 0.99), False, "torch.compile: off (step time: eager 1.00 s, compiled 0.99 s)"),
        ((1.0, RuntimeError("no C++ compiler\nmore")), False, "torch.compile: off (failed: no C++ compiler)"),
    ],
)
def test_compilation_is_kept_if_it_is_faster(
    model: nn.Sequential, monkeypatch: pytest.MonkeyPatch, found: tuple[float, float], kept: bool, message: str
) -> None:
    passes = timed(monkeypatch, *found)
    assert chosen(model) == message
    assert passes == [False, True]
    assert is_compiled(model) == [kept] * 3
    with uncompiled(model):
        assert is_compiled(model) == [False] * 3
    assert is_compiled(model) == [kept] * 3
    again = chosen(model)
    assert "; cached" in again, "a resumed run computes in the same way, and measures nothing"
    assert len(passes) == 2


def test_a_python_that_cannot_compile_is_reported(model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: nn.Module) -> None:
        raise RuntimeError("Dynamo is not supported here")

    monkeypatch.setattr(nn.Linear, "compile", refuse)
    assert chosen(model, lambda: model(torch.randn(8, 3)).sum()).startswith("torch.compile: off (failed: Dynamo")
    assert is_compiled(model) == [False] * 3


@pytest.mark.slow
def test_a_compiled_model_computes_the_same_and_saves_the_same(
    model: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(8, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    monkeypatch.setattr(compiling, "COMPILE_WORTH_IT", 1e9)
    message = chosen(model, lambda: model(x).sum())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), "the measurement leaves the model as it was"
    if not message.startswith("torch.compile: on"):
        pytest.skip(message)  # no C++ compiler
    assert all(is_compiled(model))
    with uncompiled(model):
        expected = model.eval()(x)
    torch.testing.assert_close(model(x), expected)
