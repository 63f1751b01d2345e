"""Learning rates of parameter groups."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tldet.errors import ConfigError
from tldet.models.backbones import TorchvisionBackbone, ViTBackbone
from tldet.transfer.param_groups import build_optimizer


class Small(nn.Module):
    """A backbone, and a head with a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TorchvisionBackbone("resnet18", frozen_stages=1).freeze()
        self.head = nn.Sequential(nn.Linear(4, 4), nn.GroupNorm(2, 4))


@pytest.fixture
def model() -> Small:
    return Small()


def test_every_trainable_parameter_is_in_one_group(model: Small) -> None:
    optimizer = build_optimizer(model, {"type": "AdamW", "lr": 1e-3}, 4)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}


def test_decay_of_norms_and_biases(model: Small) -> None:
    settings = {"type": "SGD", "lr": 0.1, "weight_decay": 0.01, "norm_decay": 0.0, "bias_decay": 0.002}
    optimizer = build_optimizer(model, settings, 4)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    linear, norm = model.head[0], model.head[1]
    assert [decay[id(p)] for p in (linear.weight, linear.bias, norm.weight, norm.bias)] == [0.01, 0.002, 0.0, 0.0]


def test_biases_may_have_a_higher_rate_but_norms_do_not(model: Small) -> None:
    optimizer = build_optimizer(model, {"type": "SGD", "lr": 0.1, "bias_lr": 2.0, "backbone_lr": 0.5}, 4)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    linear, norm = model.head[0], model.head[1]
    assert [rate[id(p)] for p in (linear.weight, linear.bias, norm.weight, norm.bias)] == [0.1, 0.2, 0.1, 0.1]


def test_lower_layers_have_lower_learning_rates(model: Small) -> None:
    settings = {"type": "AdamW", "lr": 1.0, "backbone_lr": 0.5, "layer_decay": 0.1}
    rates = {group["name"]: group["lr"] for group in build_optimizer(model, settings, 4).param_groups}
    assert rates["backbone.layer4"] == pytest.approx(0.05)
    assert rates["backbone.layer3"] == pytest.approx(0.005)
    assert rates["backbone.layer2"] == pytest.approx(0.0005)
    assert rates["head"] == 1.0
    assert not any(name.startswith("backbone.layer1") for name in rates), "frozen"


def test_the_learning_rate_scales_with_the_batch_and_is_logged(model: Small, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    optimizer = build_optimizer(model, {"type": "SGD", "lr": 0.02, "base_batch": 16}, 4)
    assert {group["lr"] for group in optimizer.param_groups} == {0.005}
    assert "learning rate 0.005: 0.02 for batch size 16, scaled linearly to batch size 4" in caplog.text
    same = build_optimizer(model, {"type": "SGD", "lr": 0.02}, 4)
    assert {group["lr"] for group in same.param_groups} == {0.02}


class Scales(nn.Module):
    """Parameters without weight decay next to a layer with it."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(2))
        self.layer_scale = nn.Parameter(torch.ones(4, 1, 1))
        self.relative_position_bias_table = nn.Parameter(torch.ones(9, 2))
        self.class_token = nn.Parameter(torch.ones(1, 1, 4))
        self.layer = nn.Linear(4, 4)
        self.act = nn.PReLU()
        self.table = nn.Embedding(3, 4)

    def no_weight_decay(self) -> set[str]:
        return {"table.weight"}


def decays(model: nn.Module) -> dict[str, float]:
    settings = {"type": "AdamW", "lr": 0.1, "weight_decay": 0.05}
    groups = build_optimizer(model, settings, 4).param_groups
    found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters() if id(p) in found}


def test_only_the_weights_of_layers_decay() -> None:
    found = decays(nn.Sequential(Scales()))
    assert {name for name, decay in found.items() if decay} == {"0.layer.weight", "0.layer.bias"}
    assert len(found) == 10


@pytest.mark.parametrize("name", ["swin_t", "convnext_tiny"])
def test_tables_and_layer_scales_of_torchvision_do_not_decay(name: str) -> None:
    found = decays(TorchvisionBackbone(name, frozen_stages=-1, norm="batch"))
    special = {key for key in found if key.endswith(("relative_position_bias_table", "layer_scale"))}
    assert len(special) >= 12
    assert not any(found[key] for key in special)
    assert any(found.values())


def test_embeddings_and_tokens_of_timm_do_not_decay() -> None:
    found = decays(ViTBackbone("vit_tiny_patch16_224"))
    special = {key for key in found if key.endswith(("pos_embed", "cls_token"))}
    assert len(special) == 2
    assert not any(found[key] for key in special)


def test_layer_decay_of_a_vision_transformer_is_vitdet_s() -> None:
    model = nn.Module()
    model.backbone = ViTBackbone("vit_tiny_patch16_224")
    groups = build_optimizer(model, {"type": "AdamW", "lr": 1.0, "layer_decay": 0.7}, 4).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    body = model.backbone.body
    assert rate[id(body.pos_embed)] == pytest.approx(0.7**13)
    assert rate[id(body.blocks[0].mlp.fc1.weight)] == pytest.approx(0.7**12)
    assert rate[id(body.blocks[11].mlp.fc1.weight)] == pytest.approx(0.7)


def test_it_steps(model: Small) -> None:
    optimizer = build_optimizer(model, {"type": "AdamW", "lr": 0.1}, 4)
    before = model.head[0].weight.clone()
    model.head(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.head[0].weight)


def test_an_unknown_optimizer(model: Small) -> None:
    with pytest.raises((ConfigError, KeyError)):
        build_optimizer(model, {"type": "Adam9", "lr": 0.1}, 4)


def test_the_learning_rates_of_a_layer_wise_decay_are_logged(model: Small, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        build_optimizer(model, {"type": "AdamW", "lr": 1.0, "backbone_lr": 0.5, "layer_decay": 0.5}, 4)
    assert (
        "layer-wise decay 0.5, backbone_lr 0.5: learning rate x 0.25 (last backbone group) to x 0.0156 (first)"
        in caplog.text
    )
