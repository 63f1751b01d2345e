"""Torchvision's detectors in a process of their own; see :class:`.child.Served`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

FROZEN = ("conv1", "bn1", "layer1")
RATE = 1e-9  # learning rate; every step is the same work


def build(factory: str, size: tuple[int, int], classes: int) -> nn.Module:
    """Build a detector with random weights, without resizing of images."""
    made = getattr(torchvision.models.detection, factory)
    sides = {"min_size": min(size), "max_size": max(size)}
    return cast(nn.Module, made(weights=None, weights_backbone=None, num_classes=classes, **sides))


@torch.inference_mode()
def detect(model: nn.Module, images: list[Tensor]) -> list[dict[str, Tensor]]:
    """Detect objects on (3, H, W) float32 images in 0..1."""
    found: list[dict[str, Tensor]] = model(images)
    return found


def set_score(model: nn.Module, score: float) -> None:
    """Set the score threshold."""
    head: Any = getattr(model, "roi_heads", model)
    head.score_thresh = score


def freeze(model: nn.Module) -> None:
    """Freeze norms, stem and layer1, as torchvision does for a pretrained backbone."""
    body: Any = model.backbone.body  # type: ignore[union-attr]
    for parent in list(body.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                norm = FrozenBatchNorm2d(child.num_features, child.eps)
                norm.load_state_dict(child.state_dict(), strict=False)
                setattr(parent, name, norm)
    for name, parameter in body.named_parameters():
        if name.startswith(FROZEN):
            parameter.requires_grad_(False)


def predicting(
    factory: str, size: list[int], classes: int, weights: str, score: float, inputs: str
) -> Callable[[], object]:
    """Return a function that predicts on the images of a file."""
    model = build(factory, (size[0], size[1]), classes).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    set_score(model, score)
    images = [image.float() / 255 for image in torch.load(inputs, weights_only=True)["images"]]
    return lambda: detect(model, images)


def training(factory: str, size: list[int], classes: int, weights: str, inputs: str) -> Callable[[], object]:
    """Return a function that trains one step as in torchvision's reference script."""
    model = build(factory, (size[0], size[1]), classes).train()
    model.load_state_dict(torch.load(weights, weights_only=True))
    freeze(model)
    given = torch.load(inputs, weights_only=True)
    images = [image.float() / 255 for image in given["images"]]
    targets: list[dict[str, Tensor]] = given["targets"]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], RATE, 0.9)

    def step() -> None:
        losses: dict[str, Tensor] = model(images, [dict(target) for target in targets])
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()

    return step
