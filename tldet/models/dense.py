"""What the one-stage heads share: their towers, and the references of a batch that learn an object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tldet.config import require_range
from tldet.errors import ConfigError
from tldet.models.matching import IGNORED
from tldet.structures import Target

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


class Learners(NamedTuple):
    """Which references of a batch learn what; P of them hold an object, picture by picture."""

    counted: Tensor  # (B, M) bool, false for references that are neither object nor background
    picture: Tensor  # (P,)
    place: Tensor  # (P,) 0..M-1
    labels: Tensor  # (P,) 0..K-1
    boxes: Tensor  # (P, 4) xyxy pixels
    per_picture: Tensor  # (B,) how many there are
    classes: Tensor | None  # (B, K) bool, what each picture was labelled for; None where every one was for all

    def of(self, values: Tensor) -> Tensor:
        """(B, M, ...) predictions to the (P, ...) float32 of those that hold an object."""
        return values[self.picture, self.place].float()


def learners(matched: Sequence[Tensor], targets: Sequence[Target]) -> Learners:
    """The references that learn, from B x (M,) rows of the pictures' targets, BACKGROUND or IGNORED."""
    found = torch.stack(list(matched))
    counted, positive = found != IGNORED, found >= 0
    picture, place = positive.nonzero(as_tuple=True)
    chosen = [m[p] for m, p in zip(matched, positive, strict=True)]
    labels = torch.cat([target.labels[c] for target, c in zip(targets, chosen, strict=True)])
    boxes = torch.cat([target.boxes[c] for target, c in zip(targets, chosen, strict=True)])
    return Learners(counted, picture, place, labels, boxes, positive.sum(1), labelled_classes(targets))


def labelled_classes(targets: Sequence[Target]) -> Tensor | None:
    """(B, K) bool, the classes that the pictures were labelled for; None where every one was for all."""
    stated = [target.labelled if target.partial else None for target in targets]
    some = next((classes for classes in stated if classes is not None), None)
    if some is None:
        return None
    return torch.stack([torch.ones_like(some) if one is None else one for one in stated])
