"""When callbacks are called, and what they get; hooks of mmengine itself where they can work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook

from tldet.engine.callbacks import POINTS, Callback, check_callback
from tldet.registry import HOOKS
from tldet.workflows.training.finetune import finetune

OPTIONS = ["data.loader.batch_size=4", "training.precision=fp32", "training.device=cpu"]  # 16 images: 4 steps an epoch


class Order(Callback):
    """Writes down every call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.outputs: list[dict[str, Any]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in POINTS:
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.outputs.append(outputs)
        assert (runner.iter, runner.state.step) == (batch_idx, batch_idx + 1)


class EveryTwo(Hook):  # type: ignore[misc]
    """Written against mmengine's own interface and helpers."""

    priority = "LOW"

    def __init__(self) -> None:
        self.iters: list[int] = []
        self.epochs: list[int] = []
        self.last = 0

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        import torch

        assert torch.isfinite(outputs["loss"])
        if self.every_n_train_iters(runner, 2):
            self.iters.append(runner.iter)
        if self.is_last_train_iter(runner):
            self.last = runner.iter

    def after_train_epoch(self, runner: Any) -> None:
        self.epochs.append(runner.epoch)


@pytest.fixture(scope="module")
def called(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Order, EveryTwo]:
    order, two = Order(), EveryTwo()
    out = tmp_path_factory.mktemp("callbacks") / "run"
    finetune(
        digits,
        out=out,
        model="retinanet_lite0",
        steps=6,
        scratch=True,
        cfg_options=OPTIONS,
        callbacks=[two, order],
        report=False,
    )
    return order, two


def test_the_order(called: tuple[Order, EveryTwo]) -> None:
    calls = [name for name in called[0].calls if "checkpoint" not in name and "val" not in name]
    calls = calls[calls.index("before_run") :]  # the check before looks at all of them
    steps = ["before_train_iter", "after_train_iter"]
    epoch = ["before_train_epoch", *steps * 4, "after_train_epoch"]
    assert calls == ["before_run", "before_train", *epoch, *epoch[:5], "after_train_epoch", "after_train", "after_run"]
    val = [name for name in called[0].calls if "val" in name]
    assert val[-4:] == ["before_val", "before_val_epoch", "after_val_epoch", "after_val"]


def test_the_outputs(called: tuple[Order, EveryTwo]) -> None:
    for outputs in called[0].outputs:
        total = sum(float(value) for value in outputs["losses"].values())
        assert float(outputs["loss"]) == pytest.approx(total, rel=1e-5)
        assert outputs["grad_norm"] > 0
        assert {"backbone", "neck", "head"} <= set(outputs["lr"])
    rates = [outputs["lr"]["head"] for outputs in called[0].outputs]
    assert rates[0] < max(rates) == pytest.approx(0.0015), "of a warm-up"


def test_a_hook_of_mmengine(called: tuple[Order, EveryTwo]) -> None:
    assert called[1].iters == [1, 3, 5]
    assert called[1].last == 5
    assert called[1].epochs == [0, 1]


def test_a_misspelled_point_is_found_before_training(digits: Path, tmp_path: Path) -> None:
    from tldet.errors import ConfigError

    @HOOKS.register_module(name="Misspelled")
    class Misspelled(Callback):
        def after_train_step(self, runner: Any) -> None: ...

    try:
        options = [*OPTIONS, "hooks=[{'type': 'Misspelled'}]"]
        with pytest.raises(
            ConfigError, match=r"hooks.0: Misspelled.after_train_step: is not a hook point; did you mean"
        ):
            finetune(
                digits,
                out=tmp_path / "run",
                model="retinanet_lite0",
                steps=1,
                scratch=True,
                cfg_options=options,
                report=False,
            )
    finally:
        HOOKS.module_dict.pop("Misspelled")
    check_callback(EveryTwo())
