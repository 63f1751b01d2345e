"""Proposals that become the queries of a decoder.

Letters for shapes: B images, L levels, M locations of all levels, Q queries, K classes, C channels. Boxes are (center
x, center y, width, height), normalized by the image size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tldet.models.attention import MLP
from tldet.models.query_decoder import Prediction, logit

_EDGE = 0.01  # locations closer to the image border, and anchors closer to the image size, are not used
_ANCHOR = 0.05  # normalized side of an anchor on the finest level; it doubles from level to level


class Proposals(nn.Module):
    """Predict classes and a box at every location, and select queries (Zhu et al. 2021, two-stage Deformable DETR).

    Args:
        channels: C.
        num_classes: K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.output, self.norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        nn.init.xavier_uniform_(self.output.weight)
        self.cls_score = nn.Linear(channels, num_classes)
        self.bbox_head = MLP(channels, channels, 4, 3).zero_last()

    def forward(self, maps: Sequence[Tensor], count: int) -> tuple[Prediction, Tensor]:
        """Return the predictions of the best ``count`` locations of L maps (B, C, H, W), and their queries (B, Q, C).

        The queries are detached.
        """
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)  # (B, M, C)
        anchors = _anchors(maps)  # (M, 4)
        inside = ((anchors > _EDGE) & (anchors < 1 - _EDGE)).all(-1)
        tokens = self.norm(self.output(tokens * inside[:, None]))
        logits = self.cls_score(tokens)
        best = logits.amax(-1).topk(min(count, logits.shape[1]), 1).indices[..., None]  # (B, Q, 1)
        queries = tokens.gather(1, best.expand(-1, -1, tokens.shape[-1]))
        start = logit(anchors).masked_fill(~inside[:, None], torch.finfo(anchors.dtype).max)[best[..., 0]]
        boxes = (self.bbox_head(queries).float() + start).sigmoid()
        return Prediction(logits.gather(1, best.expand(-1, -1, logits.shape[-1])), boxes), queries.detach()


def _anchors(maps: Sequence[Tensor]) -> Tensor:
    """Return anchors (M, 4) centered at every location, level by level."""
    found = []
    for number, level in enumerate(maps):
        height, width = level.shape[-2:]
        y = (torch.arange(height, device=level.device) + 0.5) / height
        x = (torch.arange(width, device=level.device) + 0.5) / width
        center = torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], -1)
        found.append(torch.cat([center, torch.full_like(center, _ANCHOR * 2**number)], -1).flatten(0, 1))
    return torch.cat(found)
