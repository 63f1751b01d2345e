"""Frozen layers cost nothing and keep their weights; and the epochs from which layers are trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tldet.config import read_config
from tldet.errors import ConfigError
from tldet.models.backbones import within
from tldet.models.detector import Detector, build_detector
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.transfer.freeze import FreezeSettings, Moment, freeze
from tldet.transfer.param_groups import build_optimizer

GROUPS = ["stem", "layer1", "layer2", "layer3", "layer4"]


def detector(frozen_stages: int = -1, norm: str = "batch") -> Detector:
    torch.manual_seed(0)
    model: dict[str, Any] = read_config("retinanet_lite0").data["model"]
    model["backbone"] = {"type": "TorchvisionBackbone", "name": "resnet18", "out_strides": [8, 16, 32]}
    model["backbone"] |= {"frozen_stages": frozen_stages, "norm": norm}
    model["head"].update(num_classes=2, stacked_convs=1)
    built = build_detector(model, ["a", "b"])
    built.backbone.freeze()  # type: ignore[operator]
    return built.train()


def batch() -> Batch:
    images = torch.randint(0, 255, (2, 3, 64, 96), generator=torch.Generator().manual_seed(1)).byte()
    target = Target(torch.tensor([[8.0, 8, 50, 50]]), torch.zeros(1, dtype=torch.int64), torch.zeros(1).bool())
    return Batch(images, [(64, 96)] * 2, [target] * 2, [(64, 96)] * 2, seed=1)


def frozen(model: Detector) -> set[str]:
    return {name for name, p in model.named_parameters() if not p.requires_grad}


def statistics(model: Detector) -> dict[str, torch.Tensor]:
    return {name: one.clone() for name, one in model.named_buffers() if name.endswith("running_mean")}


@pytest.mark.parametrize(
    ("layers", "prefixes"),
    [
        (["backbone"], ["backbone"]),
        (["backbone.*"], ["backbone"]),
        (["backbone", "neck"], ["backbone", "neck"]),
        (["backbone.layer[12]", "head.bbox_pred.bias"], ["backbone.layer1", "backbone.layer2", "head.bbox_pred.bias"]),
        (["backbone.layer1.?.conv1"], ["backbone.layer1.0.conv1", "backbone.layer1.1.conv1"]),
    ],
)
def test_globs_name_modules_and_parameters(layers: list[str], prefixes: list[str]) -> None:
    model = detector()
    assert freeze(model, FreezeSettings(layers)) == []
    assert frozen(model) == {name for name, _ in model.named_parameters() if within(name, prefixes)}


@pytest.mark.parametrize(
    ("layers", "still"), [(["backbone"], ["backbone"]), (["backbone", "neck"], ["backbone", "neck"])]
)
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_a_frozen_part_has_no_backward_pass_no_state_and_keeps_its_statistics(
    layers: list[str], still: list[str], optimizer: str
) -> None:
    model, one = detector(), batch()
    freeze(model, FreezeSettings(layers))
    model.eval().train()  # as after a validation
    before, weights = statistics(model), {name: p.clone() for name, p in model.named_parameters()}
    stepper = build_optimizer(model, {"type": optimizer, "lr": 1e-3}, 2)
    levels = model.backbone(model.normalize(one))
    assert not any(level.requires_grad for level in levels), "no activation is kept for a backward pass"
    assert any(level.requires_grad for level in model.neck(levels)) == ("neck" not in still)
    sum(model(one).values()).backward()
    stepper.step()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(stepper.state) == len(learning) == sum(len(group["params"]) for group in stepper.param_groups)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, weights[name])}
    assert moved == learning == {name for name in weights if not within(name, still)}
    after = statistics(model)
    assert {within(name, still) for name in before if torch.equal(before[name], after[name])} == {True}
    assert {within(name, still) for name in before if not torch.equal(before[name], after[name])} <= {False}


def test_statistics_are_updated_again_after_unfreezing() -> None:
    model = detector()
    freeze(model, FreezeSettings(["backbone.layer1", "backbone.layer2", "backbone.conv1", "backbone.bn1"]))
    assert not model.backbone.layer2.training  # type: ignore[union-attr]
    assert model.backbone.layer3.training  # type: ignore[union-attr]
    model.backbone.layer2.requires_grad_(True)  # type: ignore[union-attr, operator]
    model.train()
    before = statistics(model)
    model(batch())
    still = {name.split(".")[1] for name, one in statistics(model).items() if torch.equal(one, before[name])}
    assert still == {"bn1", "layer1"}


def test_gradual_gives_back_the_groups_from_the_top_down() -> None:
    model = detector(frozen_stages=1, norm="frozen")
    releases = freeze(model, FreezeSettings(["backbone.layer4"], gradual=0.6))
    assert [one.moment.share for one in releases] == pytest.approx([0.2, 0.4, 0.6])
    assert [{name.split(".")[1] for name in one.names} for one in releases] == [{"layer4"}, {"layer3"}, {"layer2"}]
    assert not any("bn" in name for one in releases for name in one.names), "the norm policy comes first"
    named = {name for one in releases for name in one.names}
    assert named.isdisjoint(frozen(model)), "an optimizer has to know them"


def test_epochs_from_which_globs_are_trained() -> None:
    model = detector()
    settings = FreezeSettings(["backbone"], {"backbone.layer4": 1.5, "backbone.layer[34]": 3, "neck.*": 3})
    releases = freeze(model, settings)
    assert [one.moment for one in releases] == [Moment(epoch=1.5), Moment(epoch=3)]
    assert {name.rpartition(".")[0].split(".")[1] for name in releases[0].names} == {"layer4"}
    parts = {".".join(name.split(".")[:2]) for name in releases[1].names}
    assert {"backbone.layer3", "neck.lateral"} <= parts
    assert "backbone.layer4" not in parts, "the earliest counts"
    assert {name.split(".")[1] for name in frozen(model)} == {"conv1", "bn1", "layer1", "layer2"}


@pytest.mark.parametrize(
    ("moment", "total", "expected", "text"),
    [
        (Moment(epoch=1.5), 40, 15, "epoch 1.5"),
        (Moment(epoch=1.5), None, 15, "epoch 1.5"),
        (Moment(share=0.25), 40, 10, "25% of the run"),
        (Moment(share=0.001), 40, 1, "0% of the run"),
    ],
)
def test_moments(moment: Moment, total: int | None, expected: int, text: str) -> None:
    assert moment.step(total, 10.0) == expected
    assert str(moment) == text


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (
            {"layers": ["backbone.layre4"]},
            r"freeze.layers: 'backbone.layre4' matches no parameters; did you mean backbone.layer",
        ),
        ({"layers": ["zzz"]}, r"'zzz' matches no parameters; the model has backbone, neck, head"),
        ({"layers": ["*"]}, r"no parameter would be trainable"),
        ({"unfreeze_at": {"backbone.lay": 2}}, r"freeze.unfreeze_at: 'backbone.lay' matches no parameters"),
        (
            {"unfreeze_at": {"backbone.conv1": 2}},
            r"frozen by model.backbone.frozen_stages .* lower frozen_stages",
        ),
        ({"unfreeze_at": {"neck": 0}}, r"the epoch of 'neck' must be above 0, not 0"),
        ({"gradual": 1.5}, r"freeze.gradual must be a fraction of the run"),
        ({"gradual": 0.5, "unfreeze_at": {"neck": 1}}, r"set one of them"),
    ],
)
def test_modules_that_cannot_be_frozen_are_reported(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error) as raised:
        freeze(detector(frozen_stages=0), FreezeSettings(**settings))
    assert "\n" not in str(raised.value)


def test_a_permanently_frozen_backbone_cannot_be_unfrozen_gradually() -> None:
    with pytest.raises(ConfigError, match=r"freeze.gradual: model.backbone.frozen_stages freezes the whole backbone"):
        freeze(detector(frozen_stages=4), FreezeSettings(gradual=0.5))
