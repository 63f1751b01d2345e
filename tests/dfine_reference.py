"""transformers' D-FINE and RT-DETRv2 with random weights, and our models with the same ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tldet.config import read_config
from tldet.models.detector import Detector, build_detector
from tldet.structures.target import Target
from tldet.transfer.interop.dialects.dfine import from_dfine

HGNET = {  # stem, first stage, layers of a block, blocks, learnable affine blocks
    "b0": ([3, 16, 16], 64, 16, 3, [1, 1, 2, 1], True),
    "b2": ([3, 24, 32], 96, 32, 4, [1, 1, 3, 1], True),
    "b4": ([3, 32, 48], 128, 48, 6, [1, 1, 3, 1], False),
}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "n": (
        "b0",
        {
            "num_feature_levels": 2,
            "encoder_ffn_dim": 512,
            "encode_proj_layers": [1],
            "d_model": 128,
            "encoder_hidden_dim": 128,
            "decoder_ffn_dim": 512,
            "decoder_n_points": [6, 6],
            "decoder_in_channels": [128, 128],
            "feat_strides": [16, 32],
            "depth_mult": 0.5,
            "decoder_layers": 3,
            "hidden_expansion": 0.34,
        },
    ),
    "s": ("b0", {"decoder_layers": 3, "hidden_expansion": 0.5, "depth_mult": 0.34, "decoder_n_points": [3, 6, 3]}),
    "m": ("b2", {"decoder_layers": 4, "depth_mult": 0.67, "decoder_n_points": [3, 6, 3]}),
    "l": ("b4", {"decoder_n_points": [3, 6, 3]}),
}
RESNETS: dict[str, tuple[list[int], bool, dict[str, Any]]] = {
    "r18": ([2, 2, 2, 2], False, {"hidden_expansion": 0.5, "decoder_layers": 3}),
    "r50_m": ([3, 4, 6, 3], True, {"hidden_expansion": 0.5}),
    "r50": ([3, 4, 6, 3], True, {}),
}
TARGETS = [
    Target(
        torch.tensor([[10.0, 20, 60, 90], [30, 30, 100, 120], [200, 100, 300, 250]]),
        torch.tensor([3, 7, 3]),
        torch.zeros(3, dtype=torch.bool),
    ),
    Target(torch.tensor([[50.0, 60, 150, 160]]), torch.tensor([5]), torch.zeros(1, dtype=torch.bool)),
]
IMAGES = (2, 3, 256, 320)


@cache
def images() -> Tensor:
    return torch.rand(IMAGES, generator=torch.Generator().manual_seed(3))


def labels() -> list[dict[str, Tensor]]:
    """The targets as transformers takes them."""
    found = []
    for target in TARGETS:
        boxes = target.boxes / torch.tensor([IMAGES[3], IMAGES[2]] * 2)
        centers = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
        found.append({"class_labels": target.labels, "boxes": centers})
    return found


def theirs(name: str, classes: int = 80) -> Any:
    """transformers' model of a recipe's name, with random weights and statistics."""
    transformers = pytest.importorskip("transformers")
    kind, _, size = name.partition("_")
    if kind == "dfine":
        backbone, more = SIZES[size]
        stem, first, mid, layers, blocks, lab = HGNET[backbone]
        widths = [first * 4 ** min(i, 1) * 2 ** max(i - 1, 0) for i in range(4)]
        more = {"encoder_in_channels": widths[4 - (2 if size == "n" else 3) :], **more}
        config = transformers.DFineConfig(num_labels=classes, freeze_backbone_batch_norms=False, **more)
        part = config.backbone_config
        part.hidden_sizes, part.stem_channels, part.stage_num_blocks = widths, stem, blocks
        part.stage_in_channels, part.stage_out_channels = [stem[2], *widths[:3]], widths
        part.stage_mid_channels, part.stage_numb_of_layers = [mid * 2**i for i in range(4)], [layers] * 4
        part.use_learnable_affine_block = lab
        if size == "n":
            part.out_indices = [3, 4]
        model = transformers.DFineForObjectDetection(config)
    else:
        depths, deep, more = RESNETS[size]
        channels = [512, 1024, 2048] if deep else [128, 256, 512]
        more = {"encoder_in_channels": channels, "freeze_backbone_batch_norms": False, **more}
        config = transformers.RTDetrV2Config(num_labels=classes, **more)
        part = config.backbone_config
        part.depths, part.layer_type = depths, "bottleneck" if deep else "basic"
        part.hidden_sizes = [256, *channels] if deep else [64, *channels]
        model = transformers.RTDetrV2ForObjectDetection(config)
    randomize(model)
    return model.eval()


@torch.no_grad()
def randomize(model: nn.Module) -> None:
    """Random weights, and the BatchNorm statistics of the test images, so that cells and scores differ."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.named_parameters():
        if not name.endswith(("reg_scale", "up")):
            value.add_(torch.randn(value.shape, generator=generator), alpha=0.02)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.weight.copy_(1 + 0.1 * torch.randn(norm.weight.shape, generator=generator))
        norm.train()
        norm.momentum = 1.0
    model(images())
    for norm in norms:
        norm.momentum = 0.1


def their_state(model: Any) -> dict[str, Tensor]:
    return {name.removeprefix("model."): value for name, value in model.state_dict().items()}


def ours(name: str, state: dict[str, Tensor], **settings: Any) -> Detector:
    """Our model of a recipe with the weights of a state dict in transformers' names; every tensor must be used."""
    section = read_config(f"recipes/{name}")["model"]
    section["head"]["settings"] = {"loss_normalizer": "batch", "convention": "transformers", **settings}
    section["backbone"]["norm"] = "batch"
    section["head"]["decoder"].pop("eval_layers", None)  # transformers predicts with the last layer
    model, translated = build_detector(section), from_dfine(state)
    wanted = {key for key in model.state_dict() if not key.endswith("num_batches_tracked")}
    assert {key for key in translated if not key.endswith("num_batches_tracked")} == wanted
    model.load_state_dict(translated, strict=False)
    return model.eval()


def train_still(model: Any) -> Any:
    """Put a model in training mode with the running statistics of all BatchNorms, and return it."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model
