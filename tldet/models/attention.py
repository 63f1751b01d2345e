"""Attention and small networks of query-based detectors.

Letters for shapes: B images, N tokens, Q queries, C channels, h attention heads, L levels, P points sampled by a head
on all levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_OFFSET = 0.5  # scale of offsets: offset 1 lies on the border of the query's box (Lv et al. 2024)


class MLP(nn.Module):
    """Linear layers with ReLU activations between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        for number, layer in enumerate(self.layers):
            x = F.relu(x) if number else x
            x = layer(x)
        return x

    def zero_last(self) -> MLP:
        """Initialize the last layer with zeros and return the module."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return self


class SelfAttention(nn.Module):
    """Multi-head self-attention; position embeddings are added to queries and keys, not to values."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk_proj = nn.Linear(channels, 2 * channels)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        for layer in (self.qk_proj, self.v_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, N, C) to (B, N, C); ``mask`` (B, 1, N, N) bool is True if a row may attend to a column."""
        batch, tokens, channels = x.shape
        q, k = self.qk_proj(x + position).view(batch, tokens, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        v = self.v_proj(x).view(batch, tokens, self.heads, -1).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, tokens, channels))
        return out


class DeformableAttention(nn.Module):
    """Attention to a few points per level around the query's box (Zhu et al. 2021, equation 3).

    The number of points may differ between levels (Lv et al. 2024, section 3.1). Points are sampled with
    ``grid_sample``.
    """

    def __init__(self, channels: int, heads: int, points: Sequence[int]) -> None:
        super().__init__()
        self.heads, self.points = heads, list(points)
        self.sampling_offsets = nn.Linear(channels, heads * sum(points) * 2)
        self.attention_weights = nn.Linear(channels, heads * sum(points))
        scale = torch.tensor([1 / n for n in points for _ in range(n)])[:, None]  # (P, 1)
        self.register_buffer("scale", scale, persistent=False)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize the offsets: the points of each head lie in one direction, at increasing distances."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.cat([torch.arange(1, n + 1) for n in self.points]).float()
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((direction[:, None] * steps[:, None]).flatten())
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(self, query: Tensor, boxes: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Sample the values of each query, and compute their weighted sum.

        Args:
            query: (B, Q, C).
            boxes: (B, Q, 4) normalized.
            values: L x (B * h, C / h, H, W).

        Returns:
            (B, Q, C).
        """
        batch, queries, channels = query.shape
        offsets = self.sampling_offsets(query).float().view(batch, queries, self.heads, -1, 2)
        weights = self.attention_weights(query).float().view(batch, queries, self.heads, -1).softmax(-1)
        center, extent = boxes[:, :, None, None, :2], boxes[:, :, None, None, 2:]
        scale = self.get_buffer("scale").to(offsets.dtype)
        locations = center + offsets * scale * extent * _OFFSET  # (B, Q, h, P, 2)
        grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * h, Q, P, 2)
        sampled = [
            F.grid_sample(value.float(), part, mode="bilinear", padding_mode="zeros", align_corners=False)
            for value, part in zip(values, grid.split(self.points, 2), strict=True)
        ]
        mixed = torch.cat(sampled, -1) * weights.transpose(1, 2).reshape(batch * self.heads, 1, queries, -1)
        out: Tensor = mixed.sum(-1).view(batch, channels, queries).transpose(1, 2).to(query.dtype)
        return out


class Gate(nn.Module):
    """Gated sum of the queries before and after cross-attention (D-FINE, appendix: target gating layer)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * channels, 2 * channels)
        self.norm = nn.LayerNorm(channels)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Merge queries (B, Q, C) before and after cross-attention."""
        first, second = self.gate(torch.cat([before, after], -1)).sigmoid().chunk(2, -1)
        out: Tensor = self.norm(first * before + second * after)
        return out
