"""Modules filled from a state: the weights are the state's, and what is no part of it is made as ever."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tldet.config import build
from tldet.models.backbones.torchvision_nets import network
from tldet.models.cosine import CosineClassifier
from tldet.models.meta_tensors import blank, filled, without_storage
from tldet.registry import BACKBONES

NETWORKS = [
    {"type": "TorchvisionBackbone", "name": "resnet18"},
    {"type": "TorchvisionBackbone", "name": "regnet_y_400mf"},
    {"type": "TorchvisionBackbone", "name": "swin_t"},
    {"type": "TorchvisionBackbone", "name": "convnext_tiny"},
    {"type": "TimmBackbone", "name": "tf_efficientnet_lite0"},
    {"type": "ViTBackbone", "name": "vit_tiny_patch16_224"},
]


@pytest.mark.parametrize("section", NETWORKS, ids=lambda section: section["name"])
def test_a_filled_network_gives_equal_features(section: dict[str, Any]) -> None:
    torch.manual_seed(0)
    whole = build(BACKBONES, section).eval()
    state = {key: value.clone() for key, value in whole.state_dict().items()}
    made = filled(lambda: build(BACKBONES, section), state).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(whole(x), made(x), strict=True):
            assert torch.equal(a, b)
    assert [p.requires_grad for p in made.parameters()] == [p.requires_grad for p in whole.parameters()]


def test_buffers_outside_the_state_are_created() -> None:
    made = filled(lambda: CosineClassifier(3, 2, scale=7.0), CosineClassifier(3, 2).state_dict())
    assert made.scale.item() == 7.0

    class Plain(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("unsaved", torch.ones(2), persistent=False)
            self.attribute = torch.ones(3)

    plain = filled(Plain, nn.Linear(2, 2).state_dict())
    assert plain.unsaved.tolist() == [1, 1]
    assert plain.attribute.tolist() == [1, 1, 1]


def test_other_precisions_are_converted_and_other_shapes_refused() -> None:
    state = nn.Linear(2, 2).state_dict()
    half = filled(lambda: nn.Linear(2, 2), {key: value.bfloat16() for key, value in state.items()})
    assert half.weight.dtype == torch.float32
    torch.testing.assert_close(half.weight, state["weight"], rtol=0.01, atol=0.01)
    with pytest.raises(RuntimeError, match="size mismatch"):
        filled(lambda: nn.Linear(3, 2), state)
    with pytest.raises(RuntimeError, match="Missing key"):
        filled(lambda: nn.Linear(2, 2), {"weight": state["weight"]})


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "convnext_tiny", "swin_t", "vgg11"])
def test_a_blank_network_runs_without_storage(name: str) -> None:
    torch.manual_seed(0)
    whole, empty = network(name).eval(), blank(lambda: network(name)).eval()
    assert {k: v.shape for k, v in empty.state_dict().items()} == {k: v.shape for k, v in whole.state_dict().items()}
    assert sum(t.untyped_storage().nbytes() for t in empty.state_dict().values()) < 8 * len(empty.state_dict()) + 8
    with torch.no_grad():
        assert empty(torch.ones(1, 3, 64, 64)).shape == whole(torch.ones(1, 3, 64, 64)).shape


def test_weights_without_storage_leave_the_random_state() -> None:
    before = torch.get_rng_state()
    module = without_storage(lambda: nn.Sequential(nn.Linear(3, 2), network("vgg11")))
    assert all(parameter.is_meta for parameter in module.parameters())
    assert torch.equal(torch.get_rng_state(), before)
