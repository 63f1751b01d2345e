"""Hybrid encoder of RT-DETR (Zhao et al. 2024, section 4.2) and D-FINE (Peng et al. 2024).

Self-attention on the coarsest level (AIFI), then a top-down and a bottom-up path of convolutional blocks between the
levels (CCFF). D-FINE's blocks are RepNCSPELAN4 (Wang et al. 2024, YOLOv9) with separable downsampling, RT-DETR's are
CSP blocks with strided convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_range
from tldet.models.attention import SelfAttention
from tldet.models.necks.fpn import BatchNorm
from tldet.registry import NECKS

_TEMPERATURE = 10000.0  # of the position embedding (Vaswani et al. 2017)


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, and SiLU if ``act`` is True."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1, act: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = BatchNorm(outputs)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        x = self.norm(self.conv(x))
        return F.silu(x, inplace=True) if self.act else x


class RepBlock(nn.Module):
    """Sum of a 3x3 and a 1x1 convolution (RepVGG, Ding et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, 3)
        self.conv2 = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return F.silu(self.conv1(x) + self.conv2(x), inplace=True)


class CSPBlock(nn.Module):
    """Two branches of a cross-stage partial network, one of them with ``depth`` RepVGG blocks."""

    def __init__(self, inputs: int, outputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, hidden, 1, act=True)
        self.conv2 = ConvNorm(inputs, hidden, 1, act=True)
        self.bottlenecks = nn.Sequential(*(RepBlock(hidden) for _ in range(depth)))
        self.conv3 = ConvNorm(hidden, outputs, 1, act=True) if hidden != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        out: Tensor = self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x))
        return out


class ELANBlock(nn.Module):
    """RepNCSPELAN4: a split input and two chained CSP branches, all concatenated."""

    def __init__(self, inputs: int, outputs: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, inputs, 1, act=True)
        self.csp1 = CSPBlock(inputs // 2, hidden, hidden, depth)
        self.conv2 = ConvNorm(hidden, hidden, 3, act=True)
        self.csp2 = CSPBlock(hidden, hidden, hidden, depth)
        self.conv3 = ConvNorm(hidden, hidden, 3, act=True)
        self.conv4 = ConvNorm(inputs + 2 * hidden, outputs, 1, act=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        x = self.conv1(x)
        first = self.conv2(self.csp1(x.chunk(2, 1)[1]))
        second = self.conv3(self.csp2(first))
        out: Tensor = self.conv4(torch.cat([x, first, second], 1))
        return out


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network over the locations of one map."""

    def __init__(self, channels: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn, self.norm1 = SelfAttention(channels, heads), nn.LayerNorm(channels)
        self.linear1, self.linear2 = nn.Linear(channels, feedforward), nn.Linear(feedforward, channels)
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Map (B, N, C) to (B, N, C); ``position`` is the (N, C) position embedding."""
        x = self.norm1(x + self.self_attn(x, position))
        out: Tensor = self.norm2(x + self.linear2(F.gelu(self.linear1(x))))
        return out


@NECKS.register_module()
class HybridEncoder(nn.Module):
    """Self-attention on the coarsest level, then top-down and bottom-up fusion.

    Args:
        in_channels: channels of the backbone's levels, finest first.
        in_strides: their strides.
        out_channels: channels of every output level.
        layers: self-attention layers on the coarsest level; 0 for none.
        heads: attention heads.
        feedforward: hidden width of the feed-forward network.
        blocks: "elan" (D-FINE) or "csp" (RT-DETR).
        expansion: hidden width of the blocks, relative to ``out_channels`` for "csp" and to half of it for "elan".
        depth: number of RepVGG blocks in each CSP branch.

    Raises:
        ConfigError: a value is out of range.
        ValueError: ``out_channels`` is not a multiple of 4 and of ``heads``.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        out_channels: int = 256,
        *,
        layers: int = 1,
        heads: int = 8,
        feedforward: int = 1024,
        blocks: Literal["elan", "csp"] = "elan",
        expansion: float = 1.0,
        depth: int = 3,
    ) -> None:
        super().__init__()
        require_range("out_channels", out_channels, "[4, inf]")
        require_range("expansion", expansion, "(0, inf)")
        require_range("depth", depth, "[0, inf]")
        if out_channels % heads or out_channels % 4:
            raise ValueError(f"out_channels={out_channels} must be a multiple of 4 and of heads={heads}")
        c, elan, fusions = out_channels, blocks == "elan", range(len(in_channels) - 1)
        hidden = round(expansion * c // 2) if elan else int(c * expansion)
        self.channels, self.strides = c, tuple(in_strides)
        self.input_proj = nn.ModuleList(ConvNorm(channels, c, 1) for channels in in_channels)
        self.layers = nn.ModuleList(EncoderLayer(c, heads, feedforward) for _ in range(layers))
        block = ELANBlock if elan else CSPBlock
        self.lateral = nn.ModuleList(ConvNorm(c, c, 1, act=not elan) for _ in fusions)
        self.top_down = nn.ModuleList(block(2 * c, c, hidden, depth) for _ in fusions)
        self.downsample = nn.ModuleList(_downsample(c, separable=elan) for _ in fusions)
        self.bottom_up = nn.ModuleList(block(2 * c, c, hidden, depth) for _ in fusions)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the backbone's levels, each (B, C, H, W), to as many output levels (B, out_channels, H, W)."""
        levels = [project(level) for project, level in zip(self.input_proj, features, strict=True)]
        levels[-1] = self._attend(levels[-1])
        for number, (lateral, block) in enumerate(zip(self.lateral, self.top_down, strict=True)):
            at = len(levels) - 2 - number
            levels[at + 1] = lateral(levels[at + 1])
            coarse = F.interpolate(levels[at + 1], size=levels[at].shape[-2:], mode="nearest")
            levels[at] = block(torch.cat([coarse, levels[at]], 1))
        for at, (down, block) in enumerate(zip(self.downsample, self.bottom_up, strict=True)):
            levels[at + 1] = block(torch.cat([down(levels[at]), levels[at + 1]], 1))
        return tuple(levels)

    def _attend(self, level: Tensor) -> Tensor:
        """Apply the self-attention layers to a level (B, C, H, W); the shape is unchanged."""
        if not len(self.layers):
            return level
        height, width = level.shape[-2:]
        position = position_embedding(height, width, self.channels, level.device).to(level.dtype)
        x = level.flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, position)
        return x.transpose(1, 2).reshape(level.shape)


def _downsample(channels: int, *, separable: bool) -> nn.Module:
    """Build a convolution of stride 2: 1x1 and depthwise 3x3 (SCDown of YOLOv10, Wang et al. 2024), or a plain 3x3."""
    if not separable:
        return ConvNorm(channels, channels, 3, 2, act=True)
    return nn.Sequential(ConvNorm(channels, channels, 1), ConvNorm(channels, channels, 3, 2, groups=channels))


def position_embedding(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """Return the position embedding (H * W, C): sines and cosines of the row, then of the column, of each location."""
    quarter = channels // 4
    wave = _TEMPERATURE ** (-torch.arange(quarter, dtype=torch.float32, device=device) / quarter)
    rows = torch.arange(height, dtype=torch.float32, device=device)[:, None] * wave
    columns = torch.arange(width, dtype=torch.float32, device=device)[:, None] * wave
    y = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, width, -1)
    x = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(height, -1, -1)
    return torch.cat([y, x], -1).flatten(0, 1)
