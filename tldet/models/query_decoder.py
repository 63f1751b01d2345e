"""Transformer decoder of query-based detectors: D-FINE (Peng et al. 2024) and RT-DETRv2 (Lv et al. 2024).

In each layer, the queries attend to each other, sample the feature maps around their boxes (deformable attention, Zhu
et al. 2021), and refine the boxes. D-FINE refines a distribution over the position of each side (fine-grained
distribution refinement, Peng et al. 2024, section 4.1); RT-DETRv2 adds a correction in logit space.

Letters for shapes: B images, Q queries, C channels, h attention heads, L levels, P points sampled by a head on all
levels, K classes, n + 1 bins of a distribution. Boxes are (center x, center y, width, height) relative to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.models.attention import MLP, DeformableAttention, Gate, SelfAttention

_EPS = 1e-5  # keeps logits finite
_POSITION = 10.0  # largest absolute value of the position embedding (the authors)
_TOP = 4  # number of largest probabilities of a distribution from which its quality is estimated


@dataclass(frozen=True)
class DecoderOptions:
    """Layers of a decoder.

    Attributes:
        channels: width of queries and feature maps.
        layers: number of layers.
        eval_layers: number of layers used for evaluation; None for all.
        heads: attention heads.
        feedforward: hidden width of the feed-forward networks.
        points: number of points that a head samples on each level, finest first; one number for all levels.
        refinement: "distribution": each layer refines distributions over the sides and merges cross-attention by a
            gate (D-FINE); "box": each layer corrects the box and projects the maps (RT-DETR).
        bins: n, number of intervals of a distribution.
        reg_scale: curvature of the bin values; larger values mean finer steps around 0 (D-FINE, equation 3).
        up: value of the second to last bin, relative to the box size (D-FINE, equation 3).

    Raises:
        ConfigError: a value is out of range.
    """

    channels: int = 256
    layers: int = 6
    eval_layers: int | None = None
    heads: int = 8
    feedforward: int = 1024
    points: int | Sequence[int] = 4
    refinement: Literal["distribution", "box"] = "distribution"
    bins: int = 32
    reg_scale: float = 4.0
    up: float = 0.5

    def __post_init__(self) -> None:
        require_ranges(self, "model.head.decoder.", channels="[8, inf]", layers="[1, inf]", heads="[1, inf]")
        require_ranges(self, "model.head.decoder.", feedforward="[1, inf]", points="[1, inf]", bins="[4, inf]")
        require_ranges(self, "model.head.decoder.", reg_scale="(0, inf)", up="(0, inf)")
        require_ranges(self, "model.head.decoder.", eval_layers=f"[1, {self.layers}]")

    def points_of(self, levels: int) -> list[int]:
        """Return the points on each of ``levels`` levels.

        Raises:
            ValueError: ``points`` has the wrong number of levels, or the channels are not a multiple of the heads.
        """
        points = [self.points] * levels if isinstance(self.points, int) else list(self.points)
        if len(points) != levels:
            raise ValueError(f"decoder.points has length {len(points)}, not {levels}, the number of feature levels")
        if self.channels % self.heads:
            raise ValueError(f"decoder.channels={self.channels} must be a multiple of decoder.heads={self.heads}")
        return points


class Prediction(NamedTuple):
    """Output of one decoder layer, or of the encoder's proposals."""

    logits: Tensor  # (B, Q, K)
    boxes: Tensor  # (B, Q, 4) float32, normalized
    corners: Tensor | None = None  # (B, Q, 4 * (n + 1)) float32 logits of the distributions: left, top, right, bottom
    origins: Tensor | None = None  # (B, Q, 4) boxes that the distributions refine

    def part(self, start: int | None, stop: int | None) -> Prediction:
        """Return the predictions of some of the queries."""
        corners = None if self.corners is None else self.corners[:, start:stop]
        origins = None if self.origins is None else self.origins[:, start:stop]
        return Prediction(self.logits[:, start:stop], self.boxes[:, start:stop], corners, origins)


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention, feed-forward network, and the layers that predict class and box."""

    def __init__(self, o: DecoderOptions, levels: int, num_classes: int) -> None:
        super().__init__()
        c, self.gated = o.channels, o.refinement == "distribution"
        self.heads, self.bins = o.heads, o.bins
        self.self_attn, self.norm1 = SelfAttention(c, o.heads), nn.LayerNorm(c)
        self.cross_attn = DeformableAttention(c, o.heads, o.points_of(levels))
        if self.gated:
            self.gate = Gate(c)
            self.quality = MLP(4 * (_TOP + 1), 64, 1, 2).zero_last()
        else:
            self.value_proj, self.output_proj, self.norm2 = nn.Linear(c, c), nn.Linear(c, c), nn.LayerNorm(c)
            for layer in (self.value_proj, self.output_proj):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.linear1, self.linear2 = nn.Linear(c, o.feedforward), nn.Linear(o.feedforward, c)
        self.norm3 = nn.LayerNorm(c)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)
        self.cls_score = nn.Linear(c, num_classes)
        self.bbox_head = MLP(c, c, 4 * (o.bins + 1) if self.gated else 4, 3).zero_last()

    def forward(
        self, x: Tensor, position: Tensor, boxes: Tensor, maps: Sequence[Tensor], mask: Tensor | None
    ) -> Tensor:
        """Map queries (B, Q, C) to (B, Q, C); sample L maps (B, C, H, W) around the boxes (B, Q, 4)."""
        x = self.norm1(x + self.self_attn(x, position, mask))
        if self.gated:
            x = self.gate(x, self.cross_attn(x + position, boxes, [self._split(level) for level in maps]))
        else:
            read = self.cross_attn(x + position, boxes, [self._projected(level) for level in maps])
            x = self.norm2(x + self.output_proj(read))
        out: Tensor = self.norm3(x + self.linear2(F.relu(self.linear1(x))))
        return out

    def _split(self, level: Tensor) -> Tensor:
        """Reshape (B, C, H, W) to (B * h, C / h, H, W)."""
        return torch.unflatten(level.contiguous(), 1, (self.heads, -1)).flatten(0, 1)

    def _projected(self, level: Tensor) -> Tensor:
        return self._split(F.conv2d(level, self.value_proj.weight[:, :, None, None], self.value_proj.bias))

    def scores(self, x: Tensor, corners: Tensor) -> Tensor:
        """Return (B, Q, K): class logits plus the quality estimated from the distributions (GFLv2, Li et al. 2021)."""
        chance = corners.view(*corners.shape[:2], 4, self.bins + 1).softmax(-1)
        top = chance.topk(_TOP, -1).values
        shape = torch.cat([top, top.mean(-1, keepdim=True)], -1).flatten(2)
        out: Tensor = self.cls_score(x) + self.quality(shape.to(x.dtype))
        return out


class QueryDecoder(nn.Module):
    """Decoder layers with refinement of the boxes between them.

    Args:
        options: see :class:`DecoderOptions`.
        levels: L.
        num_classes: K.
    """

    def __init__(self, options: DecoderOptions, levels: int, num_classes: int) -> None:
        super().__init__()
        c, self.options = options.channels, options
        self.layers = nn.ModuleList(DecoderLayer(options, levels, num_classes) for _ in range(options.layers))
        self.query_pos = MLP(4, 2 * c, c, 2)
        for layer in self.query_pos.layers:
            nn.init.xavier_uniform_(layer.get_parameter("weight"))
        if options.refinement == "distribution":
            self.pre_bbox_head = MLP(c, c, 4, 3).zero_last()
            self.register_buffer("reg_scale", torch.tensor([options.reg_scale]))
            self.register_buffer("up", torch.tensor([options.up]))

    def forward(
        self, x: Tensor, boxes: Tensor, maps: Sequence[Tensor], mask: Tensor | None = None
    ) -> tuple[Prediction, ...]:
        """Refine the queries.

        Args:
            x: (B, Q, C) initial queries.
            boxes: (B, Q, 4) initial boxes.
            maps: L x (B, C, H, W).
            mask: (B, 1, Q, Q) bool, True if a query may attend to another.

        Returns:
            One prediction per layer; with "distribution", one more comes first, of the initial boxes from layer 1.
        """
        maps = [level.contiguous() for level in maps]
        if self.options.refinement == "box":
            return self._boxes(x, boxes, maps, mask)
        return self._distributions(x, boxes, maps, mask)

    def _boxes(self, x: Tensor, boxes: Tensor, maps: Sequence[Tensor], mask: Tensor | None) -> tuple[Prediction, ...]:
        found = []
        for layer in self._used():
            x = layer(x, self.query_pos(boxes.to(x.dtype)), boxes, maps, mask)
            refined = (layer.bbox_head(x).float() + logit(boxes)).sigmoid()
            found.append(Prediction(layer.cls_score(x), refined))
            boxes = refined.detach()
        return tuple(found)

    def _distributions(
        self, x: Tensor, boxes: Tensor, maps: Sequence[Tensor], mask: Tensor | None
    ) -> tuple[Prediction, ...]:
        """Refine distributions (D-FINE, equations 1 and 2): each layer adds to the logits of the one before."""
        values, origins = self.bin_values(), boxes
        found: list[Prediction] = []
        corners: Tensor | None = None
        before: Tensor | None = None  # queries of the layer before
        for layer in self._used():
            position = self.query_pos(boxes.to(x.dtype)).clamp(-_POSITION, _POSITION)
            x = layer(x, position, boxes, maps, mask)
            if before is None or corners is None:
                initial = (self.pre_bbox_head(x).float() + logit(boxes)).sigmoid()
                found.append(Prediction(layer.cls_score(x), initial))
                origins, corners = initial.detach(), layer.bbox_head(x).float()
            else:
                corners = layer.bbox_head(x + before).float() + corners
            distances = corners.view(*corners.shape[:2], 4, -1).softmax(-1) @ values
            refined = moved(origins, distances, self.get_buffer("reg_scale"))
            found.append(Prediction(layer.scores(x, corners), refined, corners, origins))
            boxes, before = refined.detach(), x.detach()
        return tuple(found)

    def _used(self) -> list[DecoderLayer]:
        count = None if self.training else self.options.eval_layers
        return [layer for layer in list(self.layers)[:count] if isinstance(layer, DecoderLayer)]

    def bin_values(self) -> Tensor:
        """Return the bin values (n + 1,): geometric steps around 0, twice the bound at both ends (D-FINE, eq. 3)."""
        bound = self.get_buffer("up") * self.get_buffer("reg_scale")  # (1,)
        half = self.options.bins // 2
        steps = (bound + 1) ** (2 * torch.arange(1, half, device=bound.device) / (self.options.bins - 2)) - 1
        return torch.cat([-2 * bound, -steps.flip(0), torch.zeros_like(bound), steps, 2 * bound])


def logit(x: Tensor) -> Tensor:
    """Compute the logits of numbers in 0..1, limited to finite values."""
    return torch.log(x.clamp(min=_EPS) / (1 - x).clamp(min=_EPS))


def moved(origins: Tensor, distances: Tensor, reg_scale: Tensor) -> Tensor:
    """Move the sides of boxes outwards by ``distances`` (D-FINE, eq. 1).

    Args:
        origins: (..., 4) normalized boxes.
        distances: (..., 4) left, top, right and bottom, in units of box size / ``reg_scale``.
        reg_scale: (1,).
    """
    center, extent = origins[..., :2], origins[..., 2:]
    unit = extent / reg_scale
    low = center - (0.5 * reg_scale + distances[..., :2]) * unit
    high = center + (0.5 * reg_scale + distances[..., 2:]) * unit
    return torch.cat([(low + high) / 2, high - low], -1)
