"""Modules with a rewritten depthwise backward pass: installing, copying, export, and what is left alone."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers import BlurPool2d, create_conv2d
from torch import Tensor, nn

from tldet.models.backbones.timm_nets import TimmBackbone
from tldet.models.ops import rewriting
from tldet.models.ops.depthwise import GRADIENTS, Call, Geometry
from tldet.models.ops.rewriting import Rewritten, depthwise_calls, faster_parts, has_depthwise, rewrite
from tldet.models.surgery.frozen_norms import FoldedConv2d, fold_frozen_norms


def rewrite_all(model: nn.Module, image: Tensor) -> dict[str, Call]:
    calls = depthwise_calls(model, lambda: model(image))
    rewrite(model, dict.fromkeys(calls, GRADIENTS))
    return calls


def gradients(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Of the output summed with random factors, for the input and every trainable parameter."""
    image = image.clone().requires_grad_()
    out = model(image)
    out = out[-1] if isinstance(out, (list, tuple)) else out
    factors = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return list(torch.autograd.grad(out, [image, *(p for p in model.parameters() if p.requires_grad)], factors))


def functions(out: Tensor) -> set[str]:
    """Names of the autograd functions behind a tensor."""
    seen, left = set(), [out.grad_fn]
    while left:
        if (node := left.pop()) is not None and node not in seen:
            seen.add(node)
            left += [one for one, _ in node.next_functions]
    return {type(node).__name__ for node in seen}


BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "efficientnet-lite0-same": lambda: timm.create_model("tf_efficientnet_lite0", features_only=True),
    "efficientnet-dilated": lambda: timm.create_model("efficientnet_lite0", features_only=True, output_stride=8),
    "convnext": lambda: timm.create_model("convnext_atto", features_only=True),
    "mobilenet_v3-timm": lambda: timm.create_model("mobilenetv3_small_100", features_only=True),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2().features,
    "mobilenet_v3": lambda: torchvision.models.mobilenet_v3_small().features,
    "efficientnet": lambda: torchvision.models.efficientnet_b0().features[:4],
    "convnext-torchvision": lambda: torchvision.models.convnext_tiny().features[:2],
    "blur": lambda: nn.Sequential(nn.Conv2d(3, 6, 3), BlurPool2d(6)),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_the_same_gradients(name: str) -> None:
    torch.manual_seed(0)
    model = BACKBONES[name]().double().eval()
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    assert has_depthwise(model)
    before = gradients(model, image)
    depthwise = [key for key, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels]
    found = rewrite_all(model, image)
    assert set(depthwise) <= set(found)
    for a, b in zip(before, gradients(model, image), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10 * float(a.abs().max().clamp(min=1)))


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    same = create_conv2d(4, 4, 5, stride=2, padding="same", depthwise=True)
    assert type(same).__name__ == "Conv2dSame"
    return nn.Sequential(nn.Conv2d(3, 4, 1), same, nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", groups=4))


IMAGE = torch.randn(2, 3, 17, 18, generator=torch.Generator().manual_seed(0))


def test_a_module_is_rewritten_and_gets_its_class_back() -> None:
    model = small()
    kinds, state = [type(m) for m in model], model.state_dict()
    parameters = list(model.parameters())
    found = rewrite_all(model, IMAGE)
    assert found == {
        "1": Call((2, 4, 21, 21), (5, 5), Geometry((2, 2))),
        "2": Call((2, 4, 11, 11), (3, 3), Geometry()),
    }
    assert [isinstance(m, Rewritten) for m in model] == [False, True, True]
    assert "_DepthwiseConv2dBackward" in functions(model(IMAGE))
    assert list(model.state_dict()) == list(state)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    rewrite(model, {"1": ["weight"]})
    assert [isinstance(m, Rewritten) for m in model] == [False, True, False]
    rewrite(model, {})
    assert [type(m) for m in model] == kinds
    assert not hasattr(model[1], "rewritten_parts")


def test_copies_and_pickles_are_rewritten_too() -> None:
    model = small()
    rewrite_all(model, IMAGE)
    expected = gradients(model, IMAGE)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert [isinstance(m, Rewritten) for m in other] == [False, True, True]
        assert other[1].weight is not model[1].weight
        assert all(torch.equal(a, b) for a, b in zip(expected, gradients(other, IMAGE), strict=True))
        other[1].load_state_dict(model[1].state_dict())


def test_frozen_norms_stay_folded() -> None:
    torch.manual_seed(0)
    backbone = TimmBackbone("efficientnet_lite0", out_strides=(8,)).double()
    backbone.freeze().eval()
    assert fold_frozen_norms(backbone) >= 10
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = gradients(backbone, image)
    rewrite_all(backbone, image)
    both = [m for m in backbone.modules() if isinstance(m, Rewritten) and isinstance(m, FoldedConv2d)]
    assert len(both) >= 4
    for a, b in zip(before, gradients(backbone, image), strict=True):
        torch.testing.assert_close(a, b)
    copied = copy.deepcopy(backbone)
    for a, b in zip(before, gradients(copied, image), strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_weights_and_no_gradients() -> None:
    model = small()
    rewrite_all(model, IMAGE)
    model[1].requires_grad_(False)
    for value in gradients(model, IMAGE):
        assert value.isfinite().all()
    with torch.no_grad():
        assert model(IMAGE).grad_fn is None
    with torch.inference_mode():
        assert model(IMAGE).is_inference()


def test_export_and_tracing_see_plain_convolutions() -> None:
    model = small()
    plain = torch.jit.trace(model, IMAGE)
    rewrite_all(model, IMAGE)
    expected = model(IMAGE)
    exported = torch.export.export(model, (IMAGE,))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert sum("aten.conv2d" in target for target in targets) == 3
    assert not [target for target in targets if "autograd" in target or "epthwise" in target]
    torch.testing.assert_close(exported.module()(IMAGE), expected)
    traced = torch.jit.trace(model, IMAGE)
    kinds = [sorted(node.kind() for node in one.inlined_graph.nodes()) for one in (plain, traced)]
    assert kinds[0] == kinds[1]


def test_compiler_sees_plain_convolutions() -> None:
    model = small()
    rewrite_all(model, IMAGE)
    graphs: list[Any] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(IMAGE), model(IMAGE))
    assert len(graphs) == 1
    assert sum(node.target is torch.conv2d for node in graphs[0].graph.nodes) == 3


def test_models_without_depthwise_convolutions_are_known() -> None:
    assert not has_depthwise(torchvision.models.resnet18())
    assert not has_depthwise(nn.Conv2d(1, 4, 3)) or depthwise_calls(nn.Conv2d(1, 4, 3), lambda: None) == {}
    one = nn.Conv2d(1, 4, 3)
    assert depthwise_calls(one, lambda: one(torch.randn(1, 1, 8, 8))) == {}
    doubled = nn.Conv2d(4, 8, 3, groups=4)
    assert depthwise_calls(doubled, lambda: doubled(torch.randn(1, 4, 8, 8))) == {}


@pytest.mark.parametrize(("native", "rewritten", "faster"), [(3.0, 1.0, True), (1.0, 0.9, False), (1.0, 2.0, False)])
def test_only_what_is_faster_is_rewritten(
    monkeypatch: pytest.MonkeyPatch, native: float, rewritten: float, faster: bool
) -> None:
    now = [0.0]

    def takes(seconds: float) -> Callable[..., tuple[None, None]]:
        def run(*_: Any) -> tuple[None, None]:
            now[0] += seconds * 1e-3
            return None, None

        return run

    monkeypatch.setattr(rewriting.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(rewriting, "native_gradients", takes(native))
    monkeypatch.setattr(rewriting, "input_gradient", takes(rewritten))
    monkeypatch.setattr(rewriting, "weight_gradient", takes(10 * native))
    calls = {"a": Call((1, 4, 9, 9), (5, 5), Geometry((2, 2))), "b": Call((1, 4, 9, 9), (5, 5), Geometry((2, 2)))}
    assert faster_parts(calls, torch.float32) == ({"a": ["input"], "b": ["input"]} if faster else {})
