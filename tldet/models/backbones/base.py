"""What every backbone has: freezing, norms, and maps of the sizes that its strides promise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["frozen", "eval", "batch"]
OutNorm = Literal["none", "layer"]


class Backbone(nn.Module):
    """What every backbone has.

    Args:
        weights: where the pretrained weights come from (see ``tldet.transfer.sources``), or None for random ones;
            the constructor only keeps the name.
        frozen_stages: how many stages above the stem do not learn: -1 nothing is frozen, 0 the stem, 1 the stem
            and the first stage, ...
        norm: "frozen" keeps every BatchNorm's statistics and scale as they are (torchvision), "eval" its statistics
            only (mmdet's ``norm_eval``), "batch" trains both. LayerNorms have no statistics of a batch: they learn with
            the layers around them.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, *, weights: str | None, frozen_stages: int, norm: Norm) -> None:
        super().__init__()
        self.weights_source = weights
        self.frozen_stages = frozen_stages
        self.norm = norm

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """(name, dotted prefixes of its modules and parameters) from stem to top; the first group is the stem."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training; frozen stages and frozen norms stay as in evaluation, statistics too."""
        super().train(mode)
        frozen = self._frozen()
        for name, module in self.named_modules():
            if within(name, frozen) or (self.norm != "batch" and isinstance(module, _BatchNorm)):
                module.training = False
        return self

    def freeze(self) -> Backbone:
        """Take the frozen stages and norms out of learning; call it once the weights are loaded."""
        frozen = self._frozen()
        for name, parameter in self.named_parameters():
            if within(name, frozen):
                parameter.requires_grad_(False)
        for module in self.modules():
            if self.norm == "frozen" and isinstance(module, _BatchNorm):
                module.requires_grad_(False)
        return self.train(self.training)

    def _frozen(self) -> tuple[str, ...]:
        return tuple(prefix for _, group in self.layer_groups()[: self.frozen_stages + 1] for prefix in group)

    def on_padded(self, x: Tensor, sides: tuple[int, int]) -> tuple[Tensor, ...]:
        """Run on ``x`` padded with zeros at the right and the bottom, and cut the maps back.

        Args:
            x: (B, 3, H, W).
            sides: height and width to pad to, as :meth:`maps` can take them.

        Returns:
            One (B, C, ceil(H / stride), ceil(W / stride)) a level.
        """
        height, width = x.shape[-2:]
        levels = self.maps(F.pad(x, (0, sides[1] - width, 0, sides[0] - height)))
        sizes = [(ceil_div(height, stride), ceil_div(width, stride)) for stride in self.strides]
        return tuple(level[..., :h, :w] for level, (h, w) in zip(levels, sizes, strict=True))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """One map a level of a (B, 3, H, W) whose sides the network can take."""
        raise NotImplementedError


def output_norms(channels: Sequence[int], norm: OutNorm) -> nn.ModuleList:
    """A norm for each level that is given out; "layer" over the channels of every cell.

    Networks without BatchNorm give out unnormalised sums of many blocks; detectors on Swin and ConvNeXt put a new
    LayerNorm behind each level (Liu et al. 2021, Swin Transformer, the detection configs of its authors).
    """
    if norm == "none":
        return nn.ModuleList(nn.Identity() for _ in channels)
    from timm.layers import LayerNorm2d  # takes time and memory that few networks need

    return nn.ModuleList(LayerNorm2d(c) for c in channels)


def has_batch_norm(module: nn.Module) -> bool:
    """Whether some layer normalises over the batch."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def rest_frozen(module: nn.Module) -> None:
    """Have every part inside ``module`` of which nothing learns run as in evaluation.

    Its norms then keep their statistics and its dropout drops nothing: what the parts above see of it stays the same.
    """
    for part in module.children():
        learning = [parameter.requires_grad for parameter in part.parameters()]
        if learning and not any(learning):
            part.eval()
        else:
            rest_frozen(part)


def within(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted module or parameter name is, or lies in, one of ``prefixes``."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def ceil_div(number: int, divisor: int) -> int:
    """``number / divisor``, rounded up."""
    return -(-number // divisor)


def trainable(module: nn.Module) -> int:
    """How many parameters learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
