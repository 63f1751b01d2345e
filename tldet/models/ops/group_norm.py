"""GroupNorm whose backward pass over bf16 features is fast on CPU."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """GroupNorm with a backward pass in float32 on CPU; the outputs are those of torch.

    Torch's backward pass over channels_last features in bf16 takes five times as long as in float32. Its own version,
    the reference, is used in all other cases.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
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
        needed = list(ctx.needs_input_grad[:3])
        of_x, *others = torch.ops.aten.native_group_norm_backward(
            of_y, x.float(), mean, spread, weight.float(), *ctx.shape, needed
        )
        return (None if of_x is None else of_x.to(x.dtype), *others, None, None)
