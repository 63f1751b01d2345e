"""Pairs of equal detectors of tldet and torchvision, with the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peer
from tldet import checkpoint
from tldet.config import read_config
from tldet.config.files import shipped
from tldet.errors import ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.transfer.interop.dialects.torchvision import from_torchvision
from tldet.transfer.weights import COUNTERS

CLASSES = 91  # of torchvision's classifiers


@dataclass(frozen=True)
class Pair:
    """A recipe and torchvision's detector with the same layers.

    Attributes:
        recipe: recipe of tldet.
        factory: name of torchvision's function.
        score: config key of the score threshold.
        background: torchvision's first class is background, which tldet does not count.
        options: settings in which the recipe differs from torchvision's detector.
        masks: both predict masks.
    """

    recipe: str
    factory: str
    score: str
    background: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    masks: bool = False

    def theirs(self, size: tuple[int, int]) -> nn.Module:
        """Build torchvision's detector with random weights, without resizing of images."""
        model = peer.build(self.factory, size, CLASSES)
        spread_weights(model)
        return model

    def config(self, score: float | None = None) -> dict[str, Any]:
        """Return the config of tldet's detector with torchvision's settings and a score threshold."""
        options: dict[str, Any] = {f"model.{key}": value for key, value in self.options.items()}
        options |= {"model.head.num_classes": CLASSES - self.background, "model.backbone.weights": None}
        if score is not None:
            options[f"model.{self.score}"] = score
        return read_config(self.recipe, options).data

    def ours(self, score: float | None = None) -> Detector:
        """Build tldet's detector with random weights."""
        return build_detector(self.config(score)["model"])


PAIRS = (
    Pair("faster_rcnn_r50", "fasterrcnn_resnet50_fpn", "head.roi.score_thr", True, {"head.rpn.step": "torchvision"}),
    Pair(
        "retinanet_r50",
        "retinanet_resnet50_fpn",
        "head.settings.score_thr",
        False,
        {
            "neck.extra": "p6p7_p5",
            "head.settings.step": "torchvision",
            "head.settings.sizes": [[s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))] for s in (32, 64, 128, 256, 512)],
            "head.settings.max_per_img": 300,
            "head.settings.loss_normalizer": "image",
        },
    ),
    Pair("fcos_r50", "fcos_resnet50_fpn", "head.settings.score_thr", False),
    Pair("mask_rcnn_r50", "maskrcnn_resnet50_fpn", "head.roi.score_thr", True, {"head.rpn.step": "torchvision"}, True),
)


def chosen_pairs(models: tuple[str, ...]) -> tuple[list[Pair], list[str]]:
    """Return the pairs of recipes (default: all), and a line for each recipe that is left out.

    Raises:
        ConfigError: no recipe can be compared.
    """
    known = {pair.recipe: pair for pair in PAIRS}
    there = set(shipped())
    chosen: list[Pair] = []
    skipped: list[str] = []
    for name in models or tuple(known):
        if name not in known:
            skipped.append(f"{name}: has no counterpart in torchvision; available: {', '.join(known)}")
        elif f"recipes/{name}" not in there:
            skipped.append(f"{name}: this version has no such recipe")
        else:
            chosen.append(known[name])
    if not chosen:
        raise ConfigError(f"--model {skipped[0]}")
    return chosen, skipped


def spread_weights(model: nn.Module, seed: int = 0) -> None:
    """Initialize random weights that give activations and scores with a spread as in a trained model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.4, 0.6, generator=generator)
            elif tensor.ndim >= 2:
                tensor.normal_(0, (1.6 / tensor[0].numel()) ** 0.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.05, generator=generator)


def share_weights(theirs: nn.Module, ours: Detector) -> str:
    """Load torchvision's weights into our detector; return "shared", or the reason for random weights of its own."""
    state: dict[str, Tensor] = from_torchvision(theirs.state_dict())
    own = ours.state_dict()
    wrong = [key for key in state if key not in own or own[key].shape != state[key].shape]
    wrong += [key for key in own if key not in state and not key.endswith(COUNTERS)]
    if wrong:
        spread_weights(ours)
        return f"not shared ({len(wrong)} tensors differ, such as {wrong[0]})"
    ours.load_state_dict(state, strict=False)
    return "shared"


def write_checkpoint(path: Path, config: dict[str, Any], model: Detector, size: tuple[int, int]) -> Path:
    """Write a checkpoint of a detector, with an input size without resizing."""
    names = [f"class {number}" for number in range(config["model"]["head"]["num_classes"])]
    sides = {"short": min(size), "long": max(size)}
    meta = {"class_names": names, "category_ids": list(range(1, len(names) + 1)), "input": sides}
    checkpoint.save(path, {"config": config, "meta": meta, "model": model.state_dict()})
    return path
