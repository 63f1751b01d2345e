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
    """Pyramid whose levels are computed independently from the single map of the backbone.

    Finer levels use deconvolutions of stride 2, each of which halves the channels, coarser ones use max pooling; then
    follow a 1x1 and a 3x3 convolution with LayerNorm. A finer level has ceil(H / stride) rows if H is a multiple of the
    stride of the map, as padded by the loader.

    Args:
        in_channels: channels of the single level of the backbone.
        in_strides: its stride.
        out_channels: channels of each output level.
        out_strides: strides of the output levels, powers of 2.

    Raises:
        ValueError: the backbone has more than one level.
        ConfigError: a value is out of range, or a stride is not a power of 2.
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
            raise ValueError(f"needs a backbone with one level, not {len(in_channels)}; use FPN")
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
        """Map one (B, C, H, W) to one (B, out_channels, H, W) per level of ``strides``."""
        (last,) = features
        return tuple(level(last) for level in self.levels)


def _level(in_channels: int, out_channels: int, doublings: int) -> nn.Sequential:
    """Build a level: ``doublings`` of the resolution (halvings if negative), then two convolutions."""
    from timm.layers import LayerNorm2d  # imported here because it takes time and memory

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
