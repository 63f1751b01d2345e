"""Layers that are unfrozen during a run: the same weights, whenever the run is interrupted."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tldet.engine.trainer import Trainer
from tldet.models.backbones.base import set_frozen_eval
from tldet.transfer.freeze import Moment, UnfreezeStage, Unfreezing

STAGES = [
    UnfreezeStage(Moment(epoch=2), ("table",)),
    UnfreezeStage(Moment(share=0.5), ("conv.weight", "conv.bias", "norm.weight", "norm.bias")),
]
OPTIMIZERS: dict[str, Any] = {
    "fused AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "foreach SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, foreach=True),
}


def build(
    toy: ModuleType, folder: Path, optimizer: str = "fused AdamW", stop: int | None = None, **more: Any
) -> Trainer:
    class Model(toy.ToyModel):  # type: ignore[name-defined, misc]
        def train(self, mode: bool = True) -> nn.Module:
            super().train(mode)
            set_frozen_eval(self)
            return self

    torch.manual_seed(0)
    model = Model()
    hooks = [Unfreezing(model, STAGES), *([toy.Stop(stop)] if stop else [])]
    made = OPTIMIZERS[optimizer](model.parameters())
    return toy.build(folder, model=model, optimizer=made, hooks=hooks, **more)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp("whole") for name in OPTIMIZERS}
    for name, folder in folders.items():
        build(toy, folder, name).run()
    return folders


@pytest.mark.parametrize(  # parts begin to learn after steps 10 and 20 of 40
    ("optimizer", "step"),
    [*(("fused AdamW", step) for step in (9, 10, 11, 20)), *(("foreach SGD", step) for step in (10, 19, 21))],
)
def test_a_run_resumed_before_at_and_after_the_moment_is_the_same(
    toy: ModuleType, whole: dict[str, Path], tmp_path: Path, optimizer: str, step: int
) -> None:
    stopped = build(toy, tmp_path, optimizer, stop=step).run()
    assert stopped.step == step
    build(toy, tmp_path, optimizer).run(resume=True)
    assert toy.last(tmp_path, 40) == toy.last(whole[optimizer], 40)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_weights_do_not_change_and_cost_nothing(toy: ModuleType, tmp_path: Path, optimizer: str) -> None:
    seen: dict[int, tuple[set[str], int, bool]] = {}

    class Look:
        def after_train_iter(self, runner: Trainer, batch_idx: int, **_: Any) -> None:
            moved = {name for name, p in runner.model.named_parameters() if not torch.equal(p, start[name])}
            training = bool(runner.model.norm.training)  # type: ignore[union-attr]
            seen[batch_idx + 1] = (moved, len(runner.optimizer.state), training)

    trainer = build(toy, tmp_path, optimizer)
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.hooks.insert(0, Look())
    trainer.run()
    head = {"fc.weight", "fc.bias"}
    assert seen[10] == (head, 2, False)
    assert seen[11] == (head | {"table"}, 3, False)
    assert seen[20] == (head | {"table"}, 3, False)
    assert seen[21] == (set(start), 7, True), "the norm's statistics move again"
    assert trainer.ema is not None
    assert not torch.equal(trainer.ema.shadow["conv.weight"], start["conv.weight"]), "the average knows it too"


def test_the_ema_of_frozen_weights_is_unchanged(toy: ModuleType, tmp_path: Path) -> None:
    trainer = build(toy, tmp_path, steps=9)
    start = trainer.model.table.detach().clone()  # type: ignore[union-attr, operator]
    trainer.run()
    assert trainer.ema is not None
    assert torch.equal(trainer.ema.shadow["table"], start)


def test_unfreezing_is_reported(toy: ModuleType, tmp_path: Path) -> None:
    lines: list[str] = []
    trainer = build(toy, tmp_path)
    trainer.reporter.show = lines.append  # type: ignore[method-assign]
    trainer.run()
    assert lines == [
        "after step 10: 40 more parameters are trainable",
        "after step 20: 96 more parameters are trainable",
    ]
