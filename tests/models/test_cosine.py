"""The cosine classifier: its values by hand, and what it leaves of an ordinary detector."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tldet.config import read_config
from tldet.models.cosine import CosineClassifier
from tldet.models.detector import Detector, build_detector
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.transfer.weights import load_detector


def test_values_by_hand() -> None:
    layer = CosineClassifier(2, 3)
    layer.weight.data = torch.tensor([[2.0, 0.0], [3.0, 4.0], [-1.0, 0.0]])
    logits = layer(torch.tensor([[3.0, 4.0], [0.5, 0.0], [0.0, 0.0]]))
    expected = torch.tensor([[12.0, 20.0, -12.0], [20.0, 12.0, -20.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(logits, expected)
    assert layer.bias is None


def test_logits_do_not_depend_on_vector_lengths() -> None:
    torch.manual_seed(0)
    layer, x = CosineClassifier(16, 5, scale=7.0), torch.randn(4, 16)
    logits = layer(x)
    assert float(logits.detach().abs().max()) <= 7.0
    layer.weight.data *= torch.tensor([0.01, 1.0, 30.0, 2.0, 500.0])[:, None]
    torch.testing.assert_close(layer(x * 90), logits)


def test_the_gradient_is_orthogonal_to_the_weight() -> None:
    torch.manual_seed(0)
    layer = CosineClassifier(16, 5)
    layer(torch.randn(4, 16)).square().sum().backward()
    gradient = layer.weight.grad
    assert gradient is not None
    along = (gradient * layer.weight).sum(1)
    assert float(gradient.norm()) > 1
    assert float(along.detach().abs().max()) < 1e-4


@pytest.mark.parametrize(("trainable", "parameters"), [(False, ["weight"]), (True, ["weight", "scale"])])
def test_a_trainable_scale_is_a_parameter_and_a_fixed_one_is_in_no_checkpoint(
    trainable: bool, parameters: list[str]
) -> None:
    layer = CosineClassifier(4, 3, scale=10.0, trainable=trainable)
    assert sorted(name for name, _ in layer.named_parameters()) == sorted(parameters)
    assert sorted(layer.state_dict()) == sorted(parameters)
    assert float(layer.scale.detach()) == 10.0


def test_half_precision_does_not_round_the_cosine() -> None:
    torch.manual_seed(0)
    layer, x = CosineClassifier(512, 9), torch.randn(8, 512)
    with torch.autocast("cpu", torch.bfloat16):
        logits = layer(x)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, layer(x))


def detector(recipe: str, names: tuple[str, ...] = ("a", "b", "c"), seed: int = 0, **roi: Any) -> Detector:
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["backbone"]["weights"] = None
    model["head"]["num_classes"] = len(names)
    model["head"]["roi"].update(roi)
    torch.manual_seed(seed)
    return build_detector(model, names)


def batch() -> Batch:
    images = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(1)).byte()
    target = Target(torch.tensor([[4.0, 4, 60, 50]]), torch.tensor([1]), torch.zeros(1, dtype=torch.bool), image_id=1)
    return Batch(images, [(64, 96)], [target], [(64, 96)], seed=3)


@pytest.mark.parametrize("recipe", ["faster_rcnn_lite0", "cascade_rcnn_lite0"])
def test_a_detector_with_cosine_classifier_trains_and_predicts(recipe: str) -> None:
    model = detector(recipe, cosine="trainable", score_thr=0.0).train()
    layers = [layer for layer in model.modules() if isinstance(layer, CosineClassifier)]
    assert len(layers) == (3 if "cascade" in recipe else 1)
    assert layers[0].weight.shape == (4, layers[0].in_features)
    torch.stack(list(model.loss(batch()).values())).sum().backward()
    for layer in layers:
        assert layer.weight.grad is not None
        assert layer.scale.grad is not None
        assert float(layer.weight.grad.abs().sum()) > 0
    found = model.eval().predict(batch())[0]
    assert torch.isfinite(found.scores).all()


def test_off_by_default() -> None:
    plain = detector("faster_rcnn_lite0")
    assert not any(isinstance(layer, CosineClassifier) for layer in plain.modules())
    assert {"head.box.cls_score.weight", "head.box.cls_score.bias"} <= set(plain.state_dict())


@pytest.mark.parametrize("cosine", ["none", "trainable"])
def test_classifier_weights_are_transferred_by_class_name(cosine: str) -> None:
    old = detector("faster_rcnn_lite0", ("a", "b", "c"), cosine=cosine)
    if cosine == "trainable":
        old.head.box.cls_score.scale.data.fill_(31.0)  # type: ignore[union-attr, operator]
    new = detector("faster_rcnn_lite0", ("c", "new", "a", "other"), seed=7, cosine="trainable")
    before = new.state_dict()["head.box.cls_score.weight"].clone()
    load_detector(new, old.state_dict(), old.class_names, "old")
    theirs, ours = (m.state_dict()["head.box.cls_score.weight"] for m in (old, new))
    assert torch.equal(ours[[0, 2, 4]], theirs[[2, 0, 3]]), "c, a and background"
    assert torch.equal(ours[[1, 3]], before[[1, 3]]), "new classes start in a direction of their own"
    scale = float(new.state_dict()["head.box.cls_score.scale"])
    assert math.isclose(scale, 31.0 if cosine == "trainable" else 20.0)
