"""The classifier's targets, mixing and loss against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tldet.errors import ConfigError
from tldet.models.classifier import Classifier, ClassifierSettings, build_classifier
from tldet.models.detector import Preprocess
from tldet.models.mixing import mix_images
from tldet.structures.batch import LabeledBatch


class Colours(nn.Module):
    """A backbone whose last map is the image."""

    channels, strides = (1, 3), (1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x[:, :1], x


def classifier(classes: int = 3, **settings: float) -> Classifier:
    whole = {"mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, **settings}
    names = [str(i) for i in range(classes)]
    model = Classifier(Colours(), names, ClassifierSettings(**whole), Preprocess((0.0,) * 3, (1.0,) * 3))
    nn.init.zeros_(model.fc.bias)
    return model


def batch(seed: int | None = None) -> LabeledBatch:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[0, 0], images[1, 1], images[2, 2] = 10, 20, 30
    return LabeledBatch(images, torch.tensor([0, 1, 2, 0]), list("abcd"), seed)


def test_logits_are_a_linear_layer_on_the_mean_of_the_last_map() -> None:
    model = classifier()
    means = torch.tensor([[10.0, 0, 0], [0, 20, 0], [0, 0, 30], [0, 0, 0]])
    assert torch.allclose(model.eval()(batch()), means @ model.fc.weight.T)


def test_label_smoothing_equals_the_formula() -> None:
    model = classifier(smoothing=0.3)
    nn.init.zeros_(model.fc.weight)
    model.fc.bias.data = torch.tensor([math.log(2), 0.0, 0.0])  # probabilities 1/2, 1/4, 1/4
    right, wrong = -math.log(0.5), -math.log(0.25)
    mean = (2 * (0.8 * right + 0.2 * wrong) + 2 * (0.1 * right + 0.9 * wrong)) / 4
    assert model.loss(batch())["loss_cls"].item() == pytest.approx(mean, rel=1e-6)


def test_training_returns_losses_and_evaluation_logits() -> None:
    model = classifier()
    assert set(model.train()(batch(1))) == {"loss_cls"}
    assert model.eval()(batch(1)).shape == (4, 3)


def mixed(seed: int, **how: float) -> tuple[Tensor, Tensor]:
    """Images that each hold one value, one class each: what they become says what went into them."""
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 20, 20).contiguous()
    return mix_images(images, torch.eye(4), seed, **{"mixup": 0.0, "cutmix": 0.0, **how})


@pytest.mark.parametrize("how", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
@pytest.mark.parametrize("seed", range(6))
def test_targets_are_shares_of_the_pixels(how: dict[str, float], seed: int) -> None:
    images, targets = mixed(seed, **how)
    assert torch.allclose(targets.sum(1), torch.ones(4))
    assert torch.allclose(images.mean((1, 2, 3)), targets @ torch.arange(4.0), atol=1e-5)


def test_mixup_and_cutmix_pixels() -> None:
    blended, _ = mixed(0, mixup=1.0)
    assert all(len(one.unique()) == 1 for one in blended)
    pasted, _ = mixed(3, cutmix=1.0)
    assert all(len(one.unique()) == 2 for one in pasted)
    assert set(pasted.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_mixing_depends_on_the_seed() -> None:
    both = {"mixup": 0.5, "cutmix": 0.5}
    assert all(torch.equal(a, b) for a, b in zip(mixed(7, **both), mixed(7, **both), strict=True))
    kinds = {max(len(one.unique()) for one in mixed(seed, **both)[0]) for seed in range(12)}
    assert kinds == {1, 2}, "mixup and CutMix both come up"


def test_without_a_seed_images_are_not_mixed() -> None:
    model = classifier(mixup=1.0, cutmix=1.0)
    torch.testing.assert_close(model.loss(batch())["loss_cls"], classifier_loss_without_mixing(model))
    assert not torch.equal(model.loss(batch(5))["loss_cls"], model.loss(batch())["loss_cls"])


def classifier_loss_without_mixing(model: Classifier) -> Tensor:
    return nn.functional.cross_entropy(model.logits(batch().images.float()), batch().labels)


def test_mixing_a_batch_of_one_image() -> None:
    images, targets = mix_images(torch.ones(1, 3, 4, 4), torch.tensor([[1.0, 0.0]]), 0, mixup=0.5, cutmix=0.5)
    assert torch.equal(images, torch.ones(1, 3, 4, 4))
    assert torch.equal(targets, torch.tensor([[1.0, 0.0]]))


def test_a_registered_backbone_is_used() -> None:
    backbone = {"type": "TimmBackbone", "name": "mobilenetv3_small_050", "out_strides": [16, 32], "norm": "batch"}
    model = build_classifier({"backbone": backbone, "classifier": {"dropout": 0.1}}, ["a", "b"])
    assert model.fc.in_features == model.backbone.channels[-1] == 288
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    model(LabeledBatch(images, torch.tensor([0, 1]), ["a", "b"], 3))["loss_cls"].backward()
    assert all(p.grad is not None for p in model.parameters()), "every weight learns"


@pytest.mark.parametrize("wrong", [{"smoothing": 1.0}, {"mixup": -0.1}, {"dropout": 1.5}])
def test_values_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"model\.classifier\.{next(iter(wrong))} must be"):
        ClassifierSettings(**wrong)
