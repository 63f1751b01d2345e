"""Layers of one-stage heads: convolutional towers and their output layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from tldet.config import require_range
from tldet.errors import ConfigError
from tldet.models.ops.group_norm import GroupNorm

GROUPS = 32  # of a GroupNorm (Wu and He 2018)
TowerNorm = Literal["none", "group"]


def tower(in_channels: int, width: int, depth: int, *, norm: TowerNorm = "none", bias: bool = True) -> nn.Sequential:
    """Build ``depth`` blocks of 3x3 convolution, optional GroupNorm, and ReLU.

    Raises:
        ValueError: the width is not a multiple of the number of groups, or has one channel per group, which has no
            variance on a level with one cell.
        ConfigError: a value is out of range, or there is no convolution to change the number of channels.
    """
    require_range("channels", width, "[1, inf]")
    require_range("stacked_convs", depth, "[0, inf]")
    if not depth and width != in_channels:
        raise ConfigError(
            f"stacked_convs must be at least 1 for channels={width} after a pyramid with {in_channels} channels"
        )
    if norm == "group" and (width % GROUPS or width == GROUPS):
        raise ValueError(f"channels must be a multiple of {GROUPS} above {GROUPS} for norm='group', not {width}")
    blocks = []
    for i in range(depth):
        conv = nn.Conv2d(in_channels if i == 0 else width, width, 3, padding=1, bias=bias)
        norms = [GroupNorm(GROUPS, width)] if norm == "group" else []
        blocks.append(nn.Sequential(conv, *norms, nn.ReLU(inplace=True)))
    return nn.Sequential(*blocks)


class Towers(NamedTuple):
    """Layers that predict classes and boxes at every location, shared by all levels."""

    classes: nn.Sequential
    boxes: nn.Sequential
    outputs: list[nn.Conv2d]


def build_towers(
    in_channels: int,
    outputs: Sequence[int],
    width: int | None,
    depth: int,
    *,
    norm: TowerNorm,
    bias: bool,
    prior: float,
) -> Towers:
    """Build a tower for classes, one for boxes, and the output layers.

    Weights are small; all classes have the initial probability ``prior`` (Lin et al. 2017, section 3.3).

    Args:
        in_channels: channels of the pyramid.
        outputs: channels of each output layer: that of the classes, that of the boxes, and any others.
        width: channels of the towers; None for those of the pyramid.
        depth: number of convolutions in each tower.
        norm: see :func:`tower`.
        bias: the convolutions of the towers have a bias.
        prior: initial probability of each class.

    Raises:
        ConfigError: ``prior`` is not between 0 and 1.
    """
    require_range("prior", prior, "(0, 1)")
    width = width or in_channels
    classes, boxes = (tower(in_channels, width, depth, norm=norm, bias=bias) for _ in range(2))
    layers = [nn.Conv2d(width, channels, 3, padding=1) for channels in outputs]
    for module in nn.ModuleList([classes, boxes, *layers]).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    assert layers[0].bias is not None
    nn.init.constant_(layers[0].bias, -math.log((1 - prior) / prior))
    return Towers(classes, boxes, layers)


def level_scales(levels: int) -> nn.ParameterList:
    """Create a trainable factor per level for the outputs of the shared box tower (Tian et al. 2019, section 3.2)."""
    return nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(levels))
