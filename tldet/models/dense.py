"""What the one-stage heads share: their towers."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tldet.config import require_range
from tldet.errors import ConfigError

GROUPS = 32  # of a GroupNorm (Wu and He 2018)
TowerNorm = Literal["none", "group"]


def tower(in_channels: int, width: int, depth: int, *, norm: TowerNorm = "none", bias: bool = True) -> nn.Sequential:
    """``depth`` blocks of 3x3 convolution, GroupNorm where asked for, and ReLU.

    Raises:
        ValueError: the width cannot be cut into the groups of the norm, or leaves one channel a group, which has no
            variance on a level of one cell.
        ConfigError: there are no channels, fewer than no convolutions, or none to come to another width.
    """
    require_range("channels", width, "[1, inf]")
    require_range("stacked_convs", depth, "[0, inf]")
    if not depth and width != in_channels:
        raise ConfigError(f"stacked_convs must be at least 1 for channels={width} behind a pyramid of {in_channels}")
    if norm == "group" and (width % GROUPS or width == GROUPS):
        raise ValueError(f"channels must be a multiple of {GROUPS} and more for norm='group', not {width}")
    blocks = []
    for i in range(depth):
        conv = nn.Conv2d(in_channels if i == 0 else width, width, 3, padding=1, bias=bias)
        norms = [GroupNorm(GROUPS, width)] if norm == "group" else []
        blocks.append(nn.Sequential(conv, *norms, nn.ReLU(inplace=True)))
    return nn.Sequential(*blocks)


class GroupNorm(nn.GroupNorm):
    """The same numbers as torch's; on a processor it is differentiated in float32.

    Torch's backward pass over bf16 maps with their channels last takes five times as long as over float32 ones.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        if x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled():
            given = (x, self.weight, self.bias, self.num_groups, self.eps)
            return cast(Tensor, _GroupNormFunction.apply(*given))
        return super().forward(x)


class _GroupNormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last)
        x = x if last else x.contiguous()  # the kernel reads one of the two
        batch, channels, height, width = x.shape
        ctx.shape = (batch, channels, height * width, groups)
        y, mean, spread = torch.ops.aten.native_group_norm(x, weight, bias, *ctx.shape, eps)
        ctx.save_for_backward(x, weight, mean.float(), spread.float())
        return cast(Tensor, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, spread = ctx.saved_tensors
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        of_y = of_y.to(torch.float32, memory_format=layout)
        wanted = list(ctx.needs_input_grad[:3])
        of_x, *others = torch.ops.aten.native_group_norm_backward(
            of_y, x.float(), mean, spread, weight.float(), *ctx.shape, wanted
        )
        return (None if of_x is None else of_x.to(x.dtype), *others, None, None)


def start_towers(head: nn.Module, classifier: nn.Conv2d, prior: float) -> None:
    """Start a head small, and every class at probability ``prior`` (Lin et al. 2017, section 3.3).

    Raises:
        ConfigError: it is no probability, or is sure.
    """
    require_range("prior", prior, "(0, 1)")
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    assert classifier.bias is not None
    nn.init.constant_(classifier.bias, -math.log((1 - prior) / prior))


def level_scales(levels: int) -> nn.ParameterList:
    """One learnt factor a level for what the shared box tower says (Tian et al. 2019, section 3.2)."""
    return nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(levels))
