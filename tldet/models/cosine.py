"""A classifier that looks at directions only (Gidaris and Komodakis 2018; Wang et al. 2020, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CosineClassifier(nn.Linear):
    """Logits ``scale * cos(feature, class weight)``: a class's row cannot win by its length, only by its direction.

    A class that was seen a thousand times has a longer row in a plain linear layer than one that was seen five times;
    with directions both start level, which is why few-shot detection takes it. There is no bias.

    Args:
        in_features: width C of a feature.
        classes: rows, background among them.
        scale: what the cosines are multiplied by; 20 in Wang et al. 2020, equation 1 and section 3.1.
        learned: whether the scale is learned, from ``scale`` on.
    """

    scale: Tensor

    def __init__(self, in_features: int, classes: int, *, scale: float = 20.0, learned: bool = False) -> None:
        super().__init__(in_features, classes, bias=False)
        value = torch.full((1,), float(scale))
        if learned:
            self.scale = nn.Parameter(value)
        else:
            self.register_buffer("scale", value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(R, C) features to (R, classes) float32 logits within plus and minus the scale; those of a zero are zero."""
        # Half precision would round a cosine near 1 to 0.004, which the scale makes 0.08 of a logit.
        with torch.autocast(x.device.type, enabled=False):
            cosines = F.linear(F.normalize(x.float(), dim=1), F.normalize(self.weight.float(), dim=1))
            return self.scale.float() * cosines
