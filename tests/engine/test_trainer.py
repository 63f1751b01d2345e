"""What the loop does besides resuming."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tldet import checkpoint
from tldet.engine.logging import JsonLog, read_log
from tldet.engine.precision import Precision
from tldet.engine.step import Stepper
from tldet.errors import ConfigError, TrainingError
from tldet.models.ema import Ema
from tldet.models.normalizers import RunningNormalizers
from tldet.system.determinism import capture_rng, mix_seed, restore_rng, seed_all


def poisoned(toy: ModuleType, number: int, value: float) -> Any:
    """Batches whose micro-batch ``number`` has one bad pixel."""

    def batches(start: int) -> Any:
        for n, batch in enumerate(toy.toy_batches(start), start=start):
            if n == number:
                batch.images[2, 0, 3, 3] = value
            yield batch

    return batches


def test_loss_that_is_not_finite_stops_before_the_step(toy: ModuleType, tmp_path: Path) -> None:
    trainer = toy.build(tmp_path, batches=poisoned(toy, 15, float("nan")), ema=None)
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    text = str(caught.value)
    for part in ("step 8:", "loss_cls nan", "loss_reg", "learning rate 0.00", "gradient norm nan", "images 84, 85"):
        assert part in text
    assert "95;" in text  # both micro-batches' images
    assert "the weights are unchanged and the last checkpoint is" in text
    assert "\n" not in text
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    assert trainer.state.step == 7


def test_gradient_that_is_not_finite_stops_too() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            return {"loss": self.weight.abs().sqrt().sum()}

    class Nothing:
        image_ids = (7,)

        def to(self, device: Any) -> Any:
            return self

    model = Root()
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1), Precision())
    with pytest.raises(TrainingError, match=r"the gradient is not finite: loss 0; learning rate 0.1, .* images 7"):
        stepper([Nothing()])
    assert model.weight.item() == 0


def test_accumulation_is_the_mean_over_the_window(toy: ModuleType) -> None:
    batches = [next(toy.toy_batches(n)) for n in (0, 1)]
    model = toy.ToyModel().eval()
    whole = toy.ToyModel().eval()
    whole.load_state_dict(model.state_dict())
    result = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.5), Precision())(batches)
    RunningNormalizers(whole)  # starts them
    loss = sum(sum(whole(batch).values()) for batch in batches) / 2
    loss.backward()
    assert result.loss == pytest.approx(loss.item())
    assert result.norm == pytest.approx(
        torch.cat([p.grad.flatten() for p in whole.parameters()]).norm().item(), rel=1e-5
    )
    for ours, p in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, p - 0.5 * p.grad)


def test_clipping_scales_the_step(toy: ModuleType) -> None:
    model = toy.ToyModel().eval()
    before = [p.detach().clone() for p in model.parameters()]
    result = Stepper(model, torch.optim.SGD(model.parameters(), lr=1.0), Precision(), clip_norm=0.01)(
        [next(toy.toy_batches(0))]
    )
    moved = torch.cat([(a.detach() - b).flatten() for a, b in zip(model.parameters(), before, strict=True)]).norm()
    assert result.norm > 0.01
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_scaled_gradients_give_the_same_step(toy: ModuleType) -> None:
    """The GradScaler road of fp16, in fp32."""
    model, other = toy.ToyModel().eval(), toy.ToyModel().eval()
    other.load_state_dict(model.state_dict())
    for one, scaled in ((model, False), (other, True)):
        stepper = Stepper(one, torch.optim.SGD(one.parameters(), lr=1.0), Precision(), clip_norm=0.1)
        stepper.scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0)
        stepper([next(toy.toy_batches(0))])
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_ema_follows_its_formula_and_trades_places() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, 1.0)
    model[1].requires_grad_(False)
    ema = Ema(model, 0.5)
    expected = 1.0
    for step in range(1, 20):
        nn.init.constant_(model[0].weight, float(step))
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert list(ema.shadow) == ["0.weight"]
    with ema.applied():
        assert model[0].weight.item() == pytest.approx(expected)
    assert model[0].weight.item() == 19.0
    assert ema.state_dict()["0.weight"].item() == pytest.approx(expected)
    assert list(ema.state_dict()) == list(model.state_dict())


def test_validation_sees_the_average_in_eval_mode(toy: ModuleType, tmp_path: Path) -> None:
    seen: list[bool] = []

    def evaluate(model: Any) -> dict[str, float]:
        average = trainer.deployed_weights
        assert not torch.is_grad_enabled()
        seen.append(model.training or average is None)
        return {"AP": 0.5, "weight": float(model.fc.weight.sum())}

    trainer = toy.build(tmp_path, steps=10, evaluate=evaluate)
    result = trainer.run()
    assert trainer.model.training
    assert seen == [False, False]
    assert result.metrics["weight"] == pytest.approx(float(trainer.deployed_weights()["fc.weight"].sum()))


@pytest.mark.parametrize(
    ("scores", "patience", "min_gain", "steps", "best_step"),
    [
        ([0.1, 0.2, 0.2, 0.19], 2, 0.0, 20, 10),
        ([0.1, 0.2, 0.21, 0.22], 2, 0.05, 20, 20),  # best.pt follows every gain, patience only worthy ones
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 0.0, 25, 25),
        ([float("nan"), 0.1, 0.2, 0.3, 0.4], 2, 0.0, 25, 25),
    ],
)
def test_early_stopping(
    toy: ModuleType, tmp_path: Path, scores: list[float], patience: int, min_gain: float, steps: int, best_step: int
) -> None:
    answers = iter(scores)
    changes = {"steps": 25, "patience": patience, "min_gain": min_gain, "evaluate": lambda model: {"AP": next(answers)}}
    result = toy.build(tmp_path, **changes).run()
    assert (result.step, result.best_step) == (steps, best_step)
    assert result.reason == ("finished" if steps == 25 else "no gain")
    assert result.checkpoint == tmp_path / f"step_{steps:08d}.pt"
    assert result.best_checkpoint == tmp_path / "best.pt"


def test_checkpoints_hold_what_people_need(toy: ModuleType, tmp_path: Path) -> None:
    result = toy.build(
        tmp_path, steps=10, max_keep_ckpts=3, meta={"class_names": ["a"]}, config={"schedule": {"steps": 10}}
    ).run()
    assert [path.name for path in sorted(tmp_path.glob("*.pt"))] == ["best.pt"] + [
        f"step_{n:08d}.pt" for n in (6, 9, 10)
    ]
    last, best = (
        checkpoint.load_checkpoint(tmp_path / "step_00000010.pt"),
        checkpoint.load_checkpoint(tmp_path / "best.pt"),
    )
    assert last["meta"]["class_names"] == ["a"]
    assert best["meta"]["trained"]["metrics"]["AP"] == result.best
    assert last["config"] == {"schedule": {"steps": 10}}
    assert last["training"]["total"] == 10
    assert best["training"] is None
    assert set(best["ema"]) == set(best["model"])


def test_unknown_best_metric_names_its_key(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.best_metric 'AP' is none of accuracy"):
        toy.build(tmp_path, steps=5, evaluate=lambda model: {"accuracy": 1.0}).run()


def test_global_settings_are_put_back(toy: ModuleType, tmp_path: Path) -> None:
    toy.build(tmp_path, steps=1).run()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_log_is_cut_after_a_step(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl")
    for step in (2, 4, 6):
        log.write({"type": "train", "step": step, "loss": float("nan") if step == 2 else 1.0, "time": {"seconds": 1.0}})
    with log.path.open("a") as file:
        file.write('{"type": "tr')
    assert [one["step"] for one in read_log(log.path)] == [2, 4, 6]
    log.cut(4)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == [2, 4]
    assert read_log(log.path)[0]["loss"] is None
    log.cut(0)
    assert log.path.read_text() == ""


def test_random_generators_come_back() -> None:
    import random

    import numpy as np

    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002

    seed_all(mix_seed(1, 2))
    saved = capture_rng()
    first = draw()
    assert draw() != first
    restore_rng(saved)
    assert draw() == first
    assert mix_seed(1, 2) != mix_seed(2, 1) != mix_seed(12)
    assert 0 <= mix_seed(5) < 2**63
