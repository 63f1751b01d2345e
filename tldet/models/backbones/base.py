"""Base class of backbones: freezing, norms, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["frozen", "eval", "batch"]
OutNorm = Literal["none", "layer"]


class Backbone(nn.Module):
    """Base class of backbones.

    A subclass sets ``channels`` and ``strides`` (of each output level, finest first) in its constructor and defines
    ``forward``. Everything else has defaults. A plain ``nn.Module`` with these attributes can be registered too; see
    :func:`~tldet.models.backbones.custom.build_backbone`.

    Args:
        weights: source of the pretrained weights (see ``tldet.transfer.sources``), None for random weights; the
            constructor only stores it.
        frozen_stages: number of frozen layer groups above the stem: -1 freezes nothing, 0 the stem, 1 the stem and the
            first group, ...
        norm: "frozen" freezes statistics and scale of every BatchNorm (torchvision), "eval" its statistics only
            (``norm_eval`` of MMDetection), "batch" trains both. LayerNorms have no batch statistics: they are trained
            with the layers around them.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, *, weights: str | None = None, frozen_stages: int = -1, norm: Norm = "batch") -> None:
        super().__init__()
        self.weights_source = weights
        self.frozen_stages = frozen_stages
        self.norm = norm

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """Return (name, dotted prefixes of modules and parameters) of each group from stem to top.

        The first group is the stem. By default, each child module with parameters is a group.
        """
        return child_groups(self)

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode; frozen stages and frozen norms stay in eval mode, and so keep their statistics."""
        super().train(mode)
        frozen = self._frozen()
        for name, module in self.named_modules():
            if within(name, frozen) or (self.norm != "batch" and isinstance(module, _BatchNorm)):
                module.training = False
        return self

    def freeze(self) -> Backbone:
        """Freeze stages and norms; call this after weights are loaded."""
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
        """Run on ``x`` padded with zeros at the right and the bottom, and crop the maps.

        Args:
            x: (B, 3, H, W).
            sides: height and width after padding, which :meth:`maps` accepts.

        Returns:
            One (B, C, ceil(H / stride), ceil(W / stride)) per level.
        """
        height, width = x.shape[-2:]
        levels = self.maps(F.pad(x, (0, sides[1] - width, 0, sides[0] - height)))
        sizes = [(ceil_div(height, stride), ceil_div(width, stride)) for stride in self.strides]
        return tuple(level[..., :h, :w] for level, (h, w) in zip(levels, sizes, strict=True))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of (B, 3, H, W), whose sides are multiples of what the network needs."""
        raise NotImplementedError


def child_groups(module: nn.Module, prefix: str = "") -> list[tuple[str, list[str]]]:
    """Return each child of a module as a layer group; of an only child its children, and so on.

    Parameters of the module itself belong to the first group, whose name is ``stem``.
    """
    own = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    children = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    if len(children) == 1 and not own and any(True for _ in children[0][1].children()):
        return child_groups(children[0][1], f"{prefix}{children[0][0]}.")
    groups = [(prefix + name, [prefix + name]) for name, _ in children]
    if own and not groups:
        return [("stem", own)]
    return [("stem", [*own, *groups[0][1]]), *groups[1:]] if groups else []


def output_norms(channels: Sequence[int], norm: OutNorm) -> nn.ModuleList:
    """Create a norm for each output level; "layer" is a LayerNorm over channels.

    Outputs of networks without BatchNorm are unnormalized sums of many blocks. Detectors with Swin and ConvNeXt add a
    LayerNorm to each level (Liu et al. 2021, Swin Transformer, detection configs of the authors).
    """
    if norm == "none":
        return nn.ModuleList(nn.Identity() for _ in channels)
    from timm.layers import LayerNorm2d  # imported here because it takes time and memory

    return nn.ModuleList(LayerNorm2d(c) for c in channels)


def has_batch_norm(module: nn.Module) -> bool:
    """Return True if a module contains BatchNorm."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())


def set_frozen_eval(module: nn.Module) -> None:
    """Set submodules without trainable parameters to eval mode: their norms keep statistics, their dropout is off."""
    for part in module.children():
        is_trainable = [parameter.requires_grad for parameter in part.parameters()]
        if is_trainable and not any(is_trainable):
            part.eval()
        else:
            set_frozen_eval(part)


def within(name: str, prefixes: Sequence[str]) -> bool:
    """Return True if a dotted module or parameter name equals or lies inside one of ``prefixes``."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def ceil_div(number: int, divisor: int) -> int:
    """Return ``number / divisor``, rounded up."""
    return -(-number // divisor)


def trainable(module: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
