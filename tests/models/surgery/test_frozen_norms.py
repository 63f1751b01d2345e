"""Frozen norms computed by the convolutions before them: the same losses and gradients, and only what may be folded."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tldet.config import read_config
from tldet.models.backbones.torchvision_nets import TorchvisionBackbone
from tldet.models.detector import build_detector
from tldet.models.surgery.frozen_norms import FoldedConv2d, fold_frozen_norms
from tldet.models.surgery.fuse import fuse
from tldet.system.device import cpu_has_bf16
from tldet.workflows.training.initial_weights import WeightsSource, initial_weights

Spread = Callable[[nn.Module], None]


def frozen_backbone(recipe: str, spread: Spread) -> Any:
    torch.manual_seed(0)
    backbone: Any = build_detector(read_config(recipe, {"model.backbone.weights": None}).data["model"]).backbone
    spread(backbone)
    return backbone.freeze().train()


def slopes(backbone: nn.Module, x: Tensor, kind: torch.dtype = torch.float32) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The maps of a backbone, and the gradients of a sum of them that weighs every value differently."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
        maps = [level.float() for level in backbone(x)]
    generator = torch.Generator().manual_seed(3)
    loss = sum((m * torch.randn(m.shape, generator=generator)).mean() for m in maps)
    torch.autograd.backward(torch.as_tensor(loss))
    return [m.detach() for m in maps], {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("recipe", "least"), [("retinanet_r50", 53), ("faster_rcnn_lite0", 40)])
def test_maps_and_gradients_stay(spread: Spread, recipe: str, least: int, last: bool) -> None:
    plain = frozen_backbone(recipe, spread).double()
    folded = copy.deepcopy(plain)
    assert fold_frozen_norms(folded) >= least
    assert list(folded.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2)).double()
    if last:
        folded, x = folded.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    (maps, wanted), (same_maps, found) = slopes(plain, x), slopes(folded, x)
    assert wanted.keys() == found.keys()
    assert len(wanted) > 30
    for a, b in zip(same_maps, maps, strict=True):
        assert distance(a, b) < 1e-6  # the sum is taken in float32
    for name, gradient in wanted.items():
        assert distance(found[name], gradient) < 1e-6, name


@pytest.mark.skipif(not cpu_has_bf16(), reason="hundreds of times slower without the instructions")
def test_in_bf16_the_gradients_are_as_near_as_without_folding(spread: Spread) -> None:
    plain = frozen_backbone("retinanet_r50", spread).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(2)).to(memory_format=torch.channels_last)
    exact = slopes(copy.deepcopy(plain), x)[1]
    without = slopes(copy.deepcopy(plain), x, torch.bfloat16)[1]
    folded = copy.deepcopy(plain)
    fold_frozen_norms(folded)
    with_it = slopes(folded, x, torch.bfloat16)[1]
    assert all(gradient.dtype == torch.float32 for gradient in with_it.values())
    far = {name: (distance(with_it[name], exact[name]), distance(without[name], exact[name])) for name in exact}
    assert sum(a for a, _ in far.values()) < 1.1 * sum(b for _, b in far.values())
    assert max(a for a, _ in far.values()) < 2 * max(b for _, b in far.values())


def test_a_copy_and_a_checkpoint_are_of_their_own(spread: Spread) -> None:
    folded = frozen_backbone("faster_rcnn_lite0", spread)
    fold_frozen_norms(folded)
    x = torch.randn(1, 3, 64, 64)
    before = folded(x)[0]
    assert torch.equal(pickle.loads(pickle.dumps(folded))(x)[0], before)
    again = copy.deepcopy(folded)
    assert torch.equal(again(x)[0], before)
    state = {
        name: tensor * 1.5 if name.endswith("running_var") else tensor for name, tensor in again.state_dict().items()
    }
    again.load_state_dict(state)
    assert not torch.allclose(again(x)[0], before)
    assert torch.equal(folded(x)[0], before)


def test_norms_that_learn_are_computed_by_themselves() -> None:
    learning = TorchvisionBackbone("resnet18", frozen_stages=1, norm="eval").freeze().train()
    assert fold_frozen_norms(learning) == 5  # those of the stem and of the first stage
    alone = TorchvisionBackbone("resnet18", frozen_stages=-1, norm="batch").freeze().train()
    assert fold_frozen_norms(alone) == 0


def test_a_norm_that_begins_to_learn_does(spread: Spread) -> None:
    torch.manual_seed(0)
    plain = TorchvisionBackbone("resnet18", frozen_stages=-1).freeze().train()
    spread(plain)
    folded = copy.deepcopy(plain)
    assert fold_frozen_norms(folded) == 20
    for one in (plain, folded):
        one.get_parameter("layer3.0.bn1.weight").requires_grad_(True)
        one.get_submodule("layer4.0.bn1").train()
    x = torch.randn(2, 3, 64, 64)
    (maps, wanted), (same, found) = slopes(plain, x), slopes(folded, x)
    assert "layer3.0.bn1.weight" in found
    torch.testing.assert_close(same[-1], maps[-1], rtol=1e-3, atol=1e-4)
    assert distance(found["layer3.0.bn1.weight"], wanted["layer3.0.bn1.weight"]) < 1e-3
    statistics = [one.get_submodule("layer4.0.bn1").get_buffer("running_mean") for one in (plain, folded)]
    torch.testing.assert_close(statistics[1], statistics[0], rtol=1e-3, atol=1e-4)


class Pair(nn.Module):
    """A convolution and its frozen norm; something else may take the convolution's output too."""

    def __init__(self, conv: nn.Conv2d, shared: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.shared = conv, nn.BatchNorm2d(3).eval().requires_grad_(False), shared

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.conv(x)
        return (self.norm(y) + y if self.shared else self.norm(y),)


@pytest.mark.parametrize("neutral", [False, True])
def test_where_outputs_would_change_nothing_is_folded_and_it_is_said(
    spread: Spread, neutral: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor where norms are neutral still: the weights of a resumed run come later."""
    torch.manual_seed(0)
    model, x = Pair(nn.Conv2d(3, 3, 1, bias=False), shared=True), torch.randn(1, 3, 8, 8)
    if not neutral:
        spread(model)
    before, state = model(x)[0], copy.deepcopy(model.state_dict())
    with caplog.at_level(logging.DEBUG, "tldet"):
        assert fold_frozen_norms(model) == 0
    assert "not folded: outputs of Pair would change" in caplog.text
    assert torch.equal(model(x)[0], before)
    assert [type(part) for part in model.children()] == [nn.Conv2d, nn.BatchNorm2d]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_folding_leaves_every_value_as_it_was(spread: Spread) -> None:
    model = frozen_backbone("faster_rcnn_lite0", spread)
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    fold_frozen_norms(model)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 3, 3, padding=1, bias=True),
        nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(3, 3, 3, padding="same", groups=3),
    ],
    ids=["bias", "reflected", "depthwise"],
)
def test_every_kind_of_convolution(spread: Spread, conv: nn.Conv2d) -> None:
    torch.manual_seed(0)
    plain = Pair(conv).double()
    spread(plain)
    folded, x = copy.deepcopy(plain), torch.randn(2, 3, 8, 8).double()
    assert fold_frozen_norms(folded) == 1
    (maps, wanted), (same, found) = slopes(plain, x), slopes(folded, x)
    assert wanted.keys() == found.keys() == {name for name, _ in conv.named_parameters(prefix="conv")}
    assert distance(same[0], maps[0]) < 1e-6
    assert all(distance(found[name], wanted[name]) < 1e-6 for name in wanted)


def test_a_network_of_one_size_stays_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Fixed(Pair):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            assert x.shape[-1] == 224, "224 pixels only"
            return super().forward(x)

    with caplog.at_level(logging.DEBUG, "tldet"):
        assert fold_frozen_norms(Fixed(nn.Conv2d(3, 3, 1))) == 0
    assert "not folded: Fixed does not support small images (224 pixels only)" in caplog.text


def test_prediction_leaves_what_is_folded(spread: Spread, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = build_detector(read_config("faster_rcnn_lite0", {"model.backbone.weights": None}).data["model"])
    spread(model)
    x = torch.randn(1, 3, 64, 64)
    folded = fold_frozen_norms(model.backbone.freeze())  # type: ignore[operator]
    model.eval()
    with torch.no_grad(), caplog.at_level(logging.DEBUG, "tldet"):
        before = model.features(x)
        kept = sum(isinstance(module, nn.BatchNorm2d) for module in fuse(model).modules())
        after = model.features(x)
    assert kept == folded
    assert not caplog.records
    for a, b in zip(after, before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_starts_folded(resume: bool) -> None:
    model = build_detector(read_config("faster_rcnn_lite0", {"model.backbone.weights": None}).data["model"])
    initial_weights(model, WeightsSource(resume=resume))
    assert sum(isinstance(module, FoldedConv2d) for module in model.backbone.modules()) >= 40
