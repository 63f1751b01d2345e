"""Heads and backbones from outside tldet: defaults, levels by stride, and checks that name what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tldet.config import Config, build
from tldet.config.check import ComponentType, validate_config
from tldet.data.relabeled import build_user_dataset
from tldet.errors import ConfigError
from tldet.models.backbones import Backbone, BackboneOptions, CustomBackbone, build_backbone
from tldet.models.detector import build_detector
from tldet.models.heads import Head, RetinaNetHead
from tldet.models.zoo import find_backbone
from tldet.plugins import REGISTRIES
from tldet.registry import BACKBONES, HEADS, INTERFACES
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.target import Target


class Plain(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.channels, self.strides = (width, width), (8, 16)
        self.stem = nn.Conv2d(3, width, 8, 8)
        self.bn = nn.BatchNorm2d(width)
        self.top = nn.Conv2d(width, width, 2, 2)

    def forward(self, x: Any) -> Any:
        low = self.bn(self.stem(x))
        return {"low": low, "high": self.top(low)}


class OwnBackbone(Backbone):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels, self.strides = (4,), (16,)
        self.conv = nn.Conv2d(3, 4, 16, 16)

    def forward(self, x: Any) -> Any:
        return (self.conv(x),)


class Whole(Head):
    """Predicts one box a location, and says with which arguments its methods were called."""

    def __init__(self, in_channels: int, strides: Any, num_classes: int = 80) -> None:
        super().__init__()
        self.scores = nn.Conv2d(in_channels, num_classes, 1)
        self.given: dict[str, Any] = {}

    def forward(self, features: Any, targets: Any = None) -> Any:
        self.given["targets"] = targets
        return self.scores(features[0])

    def loss(self, raw: Any, targets: Any) -> Any:
        return {"loss": raw.square().mean()}

    def decode_tensors(self, raw: Any, sizes: Any) -> Any:
        count = len(raw)
        boxes = torch.tensor([[1.0, 2, 8, 9], [0, 0, 5, 5], [0, 0, 1, 1]]).expand(count, 3, 4)
        scores = torch.tensor([0.9, 0.8, 0.0]).expand(count, 3)
        return boxes, scores, torch.tensor([1, 0, 0]).expand(count, 3), torch.full((count,), 2)


class Lossless(Whole):
    loss = None  # type: ignore[assignment]


class Undecoded(Head):
    def __init__(self, in_channels: int, strides: Any, num_classes: int = 80) -> None:
        super().__init__()

    def forward(self, features: Any) -> Any: ...
    def loss(self, raw: Any, targets: Any, sizes: Any, seed: Any = None) -> Any: ...


class NoChannels(nn.Module):
    def forward(self, x: Any) -> Any: ...


class NoForward(nn.Module):
    channels, strides = (1,), (8,)


class Narrow(nn.Module):
    """A head that does not take what tldet passes."""

    def __init__(self, num_classes: int = 80) -> None:
        super().__init__()


class Wider(RetinaNetHead):
    def __init__(self, *args: Any, extra: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = extra


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    parts = [(BACKBONES, one) for one in (Plain, OwnBackbone, NoChannels, NoForward)]
    parts += [(HEADS, one) for one in (Whole, Lossless, Undecoded, Narrow, Wider)]
    for registry, one in parts:
        registry.register_module(module=one)
    yield
    for registry, one in parts:
        registry.module_dict.pop(one.__name__)


def model(head: str = "Whole", **backbone: Any) -> dict[str, Any]:
    return {
        "backbone": {"type": "Plain", **backbone},
        "neck": {"type": "FPN", "out_channels": 8, "extra": "none"},
        "head": {"type": head, "num_classes": 2},
    }


def batch(count: int = 1) -> Batch:
    target = Target(torch.tensor([[1.0, 1, 9, 9]]), torch.tensor([0]), image_id=3)
    return Batch(torch.zeros(count, 3, 32, 64), [(32, 64)] * count, [target] * count, [(64, 128)] * count)


def test_a_plain_module_gets_defaults() -> None:
    backbone = build_backbone({"type": "Plain", "frozen_stages": 0, "norm": "frozen"})
    assert isinstance(backbone, CustomBackbone)
    assert [name for name, _ in backbone.layer_groups()] == ["stem", "body.bn", "body.top"]
    backbone.freeze()
    trained = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert trained == ["body.top.weight", "body.top.bias"]
    maps = backbone(torch.zeros(1, 3, 33, 70))
    assert [tuple(one.shape) for one in maps] == [(1, 8, 5, 9), (1, 8, 3, 5)]


def test_levels_are_selected_by_stride() -> None:
    backbone = build_backbone({"type": "Plain", "out_strides": [16]})
    assert (backbone.channels, backbone.strides) == ((8,), (16,))
    assert len(backbone(torch.zeros(1, 3, 32, 32))) == 1
    with pytest.raises(ConfigError, match=r"has levels of stride \[8, 16\], not all of out_strides=\[32\]"):
        build_backbone({"type": "Plain", "out_strides": [32]})


def test_a_backbone_of_the_base_class_is_not_wrapped() -> None:
    backbone = build_backbone({"type": "OwnBackbone", "frozen_stages": 0})
    assert type(backbone) is OwnBackbone
    assert backbone.frozen_stages == 0
    assert [name for name, _ in backbone.layer_groups()] == ["stem"]


def test_a_registered_backbone_is_found_by_name() -> None:
    found = find_backbone("Plain")
    assert (found.section, found.strides, found.weights) == ({"type": "Plain"}, (8, 16), None)


def test_the_keys_of_every_backbone_pass_the_check() -> None:
    part = {"backbone": ComponentType(BACKBONES, shared=BackboneOptions)}
    validate_config(Config({"backbone": {"type": "Plain", "weights": None, "norm": "batch", "out_strides": [8]}}), part)
    with pytest.raises(ConfigError, match=r"backbone.depth: unknown key"):
        validate_config(Config({"backbone": {"type": "Plain", "depth": 3}}), part)
    with pytest.raises(ConfigError, match=r"backbone.norm: must be one of"):
        validate_config(Config({"backbone": {"type": "Plain", "norm": "group"}}), part)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"type": "NoChannels"}, "model.backbone: backbone NoChannels has no channels"),
        ({"type": "NoForward"}, "model.backbone: backbone NoForward has no forward"),
        ({"type": "OwnBackbone", "depth": 3}, "unexpected keyword argument 'depth'"),
    ],
)
def test_a_missing_backbone_attribute_is_named(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build_backbone(section)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("Lossless", "model.head: head Lossless has no loss; a head needs forward, loss, decode"),
        ("Undecoded", "model.head: head Undecoded has no decode_tensors"),
        (
            "Narrow",
            "model.head: head Narrow must take in_channels, strides, which tldet passes; in_channels is",
        ),
    ],
)
def test_a_missing_head_attribute_is_named(head: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build_detector(model(head))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_head_in_a_detector() -> None:
    detector = build_detector(model(), ["x", "y"]).train()
    assert set(detector(batch(2))) == {"loss"}
    assert detector.head.given["targets"] is not None
    (found,) = detector.eval()(batch())
    assert isinstance(found, Detections)
    assert found.boxes.tolist() == [[2, 4, 16, 18], [0, 0, 10, 10]], "in pixels of the original image, padding cut off"
    assert found.names() == ["y", "x"]
    assert detector.head.given["targets"] is None


def test_keyword_arguments_can_be_configured() -> None:
    part = {"head": ComponentType(HEADS, supplied=("in_channels", "strides"))}
    section = {"type": "Wider", "extra": 2.0, "num_classes": 3, "settings": {"score_thr": 0.3}}
    validate_config(Config({"head": section}), part)
    head = build(HEADS, section, in_channels=8, strides=(8, 16, 32, 64, 128))
    assert (head.extra, head.num_classes, head.settings.score_thr) == (2.0, 3, 0.3)
    with pytest.raises(ConfigError, match=r"head.settings.scor: unknown key"):
        validate_config(Config({"head": {**section, "settings": {"scor": 0.3}}}), part)
    with pytest.raises(ConfigError, match=r"head Wider: .*unexpected keyword argument 'exta'"):
        build(HEADS, {**section, "exta": 1}, in_channels=8, strides=(8, 16, 32, 64, 128))


def incomplete(kind: str, missing: str) -> type:
    """A class with all attributes of an interface but one."""

    def method(*_: Any, **__: Any) -> int:
        return 1

    return type("Incomplete", (), {name: method for name in INTERFACES[kind] if name != missing})


@pytest.mark.parametrize(("kind", "missing"), [(kind, name) for kind in INTERFACES for name in INTERFACES[kind]])
def test_the_missing_attribute_of_any_component_is_named(
    kind: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = next(one for one in REGISTRIES if one.name in (kind, kind.removeprefix("detection ")))
    monkeypatch.setitem(registry.module_dict, "Incomplete", incomplete(kind, missing))
    make = {"detection dataset": lambda one: build_user_dataset(one, 0, "part")}.get(kind, partial(build, registry))
    with pytest.raises(ConfigError) as raised:
        make({"type": "Incomplete"})
    assert f"Incomplete has no {missing}; a {kind} needs {', '.join(INTERFACES[kind])}" in str(raised.value)
    assert "\n" not in str(raised.value)
