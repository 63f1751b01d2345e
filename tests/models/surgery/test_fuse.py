"""Folding BatchNorm changes no output, and only what is safe to fold is folded."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tldet.config import read_config
from tldet.engine.precision import Precision
from tldet.models.cosine import CosineClassifier
from tldet.models.detector import Detector, build_detector
from tldet.models.surgery.fuse import fuse

Spread = Callable[[nn.Module], None]


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("recipe", ["retinanet_lite0", "faster_rcnn_r50"])
def test_outputs_stay_and_no_norm_remains(spread: Spread, recipe: str, last: bool) -> None:
    model = build_detector(read_config(recipe)["model"]).eval()
    spread(model)
    Precision(channels_last=last).prepare(model)
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = model.head(model.features(x))
        assert norms(model) > 50
        assert fuse(model) is model
        after = model.head(model.features(x))
    assert norms(model) == 0
    flat = [torch.cat([t.flatten() for t in tensors_of(raw)]) for raw in (before, after)]
    torch.testing.assert_close(flat[1], flat[0], atol=1e-4 * float(flat[0].abs().max()), rtol=1e-4)
    assert not torch.equal(flat[0], torch.zeros_like(flat[0]))


def tensors_of(raw: object) -> list[Tensor]:
    return [raw] if isinstance(raw, Tensor) else [t for part in raw for t in tensors_of(part)]  # type: ignore[attr-defined]


class Odd(nn.Module):
    """A convolution whose output something else takes too, one that runs twice, and one changed before its norm."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.kind = kind

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.conv(x)
        if self.kind == "shared":
            return (self.norm(y) + y,)
        if self.kind == "twice":
            return (self.norm(y), self.conv(x[..., ::2]))
        if self.kind == "changed":
            return (self.norm(self.relu(y)),)
        return (self.norm(y),)


@pytest.mark.parametrize(
    ("kind", "left", "said"), [("plain", 0, 0), ("shared", 1, 1), ("twice", 1, 0), ("changed", 1, 0)]
)
def test_what_may_be_folded(spread: Spread, kind: str, left: int, said: int, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = Detector(Odd(kind), nn.Identity(), nn.Identity()).eval()
    spread(model)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad(), caplog.at_level(logging.DEBUG, "tldet"):
        before = model.features(x)
        fuse(model)
        after = model.features(x)
    assert norms(model) == left
    assert len(caplog.records) == said
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b, a)


def test_a_network_of_one_size_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Fixed(Odd):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            assert x.shape[-1] == 224, "224 pixels only"
            return super().forward(x)

    model = Detector(Fixed("plain"), nn.Identity(), nn.Identity()).eval()
    with caplog.at_level(logging.DEBUG, "tldet"):
        assert norms(fuse(model)) == 1
    assert "does not support small images (224 pixels only)" in caplog.text


def test_a_training_model_is_left_alone() -> None:
    model = Detector(Odd("plain"), nn.Identity(), nn.Identity()).train()
    fuse(model)
    assert norms(model) == 1


def test_weights_kept_in_bf16_give_what_autocast_gives() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)).eval()
    x, precision = torch.randn(2, 3, 12, 12), Precision("bf16")
    with torch.inference_mode(), precision.autocast():
        before = model(x)
        precision.store_weights(model)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert torch.equal(model(x), before)


def test_the_weights_of_a_cosine_classifier_stay_fp32() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), CosineClassifier(8, 4)).eval()
    x, precision = torch.randn(5, 8), Precision("bf16")
    with torch.inference_mode(), precision.autocast():
        before = model(x)
        precision.store_weights(model)
        assert [p.dtype for p in model[1].parameters()] == [torch.float32]
        assert model[0].weight.dtype == torch.bfloat16
        assert torch.equal(model(x), before)
