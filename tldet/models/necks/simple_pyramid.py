"""Simple feature pyramid (Li et al. 2022, Exploring Plain Vision Transformer Backbones, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from tldet.config import require_range
from tldet.errors import ConfigError
from tldet.registry import NECKS


@NECKS.register_module()
class SimpleFeaturePyramid(nn.Module):
    """Every level from the backbone's one last map, with no path between the levels.

    Finer levels come from deconvolutions of stride 2, each with half the channels, coarser ones from max pooling;
    on each a 1x1 and a 3x3 convolution with LayerNorm. A level finer than the map has exactly twice, four times ...
    its cells: ceil(H / stride) of them where H is a multiple of the map's stride, as the loader pads it.

    Args:
        in_channels: channels of the backbone's only level.
        in_strides: its stride.
        out_channels: channels of every level given out.
        out_strides: strides of the output levels, powers of 2.

    Raises:
        ValueError: the backbone gives more than one level.
        ConfigError: there are no channels or no levels, or a stride lies below 2.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        out_channels: int = 256,
        out_strides: Sequence[int] = (4, 8, 16, 32, 64),
    ) -> None:
        super().__init__()
        if len(in_channels) != 1:
            raise ValueError(f"takes a backbone with one level, not {len(in_channels)}; use FPN")
        require_range("out_channels", out_channels, "[1, inf]")
        require_range("out_strides", out_strides, "[2, inf]")
        if any(stride & (stride - 1) for stride in out_strides):
            raise ConfigError(f"out_strides must be powers of 2, not {list(out_strides)}")
        self.strides = tuple(out_strides)
        self.channels = out_channels
        self.levels = nn.ModuleList(
            _level(in_channels[0], out_channels, round(math.log2(in_strides[0] / stride))) for stride in self.strides
        )

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One (B, C, H, W) to one (B, out_channels, H, W) a level of ``strides``."""
        (last,) = features
        return tuple(level(last) for level in self.levels)


def _level(in_channels: int, out_channels: int, doublings: int) -> nn.Sequential:
    """``doublings`` of resolution (halvings where negative), then the two convolutions."""
    from timm.layers import LayerNorm2d  # takes time and memory that few networks need

    width, layers = in_channels, []
    for number in range(doublings):
        if number:
            layers += [LayerNorm2d(width), nn.GELU()]
        layers.append(nn.ConvTranspose2d(width, width // 2, 2, stride=2))
        width //= 2
    layers += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(-doublings)]
    layers += [nn.Conv2d(width, out_channels, 1, bias=False), LayerNorm2d(out_channels)]
    layers += [nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels)]
    return nn.Sequential(*layers)
