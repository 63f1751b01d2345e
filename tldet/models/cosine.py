"""Cosine classifier (Gidaris and Komodakis 2018; Wang et al. 2020, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CosineClassifier(nn.Linear):
    """Linear classifier without bias whose logits are ``scale * cos(feature, class weight)``.

    The norm of the weights has no effect. In a plain linear layer, the weights of frequent classes have a larger norm
    than those of rare ones, which is a disadvantage for few-shot detection.

    Args:
        in_features: number of features C.
        classes: number of classes, including background.
        scale: factor of the cosines; 20 in Wang et al. 2020, equation 1 and section 3.1.
        trainable: the scale is a trainable parameter with initial value ``scale``.
    """

    scale: Tensor

    def __init__(self, in_features: int, classes: int, *, scale: float = 20.0, trainable: bool = False) -> None:
        super().__init__(in_features, classes, bias=False)
        value = torch.full((1,), float(scale))
        if trainable:
            self.scale = nn.Parameter(value)
        else:
            self.register_buffer("scale", value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (R, C) to float32 logits (R, classes) in [-scale, scale]; those of zero features are zero."""
        # Half precision would round a cosine near 1 by up to 0.004, which is 0.08 of a logit after scaling.
        with torch.autocast(x.device.type, enabled=False):
            cosines = F.linear(F.normalize(x.float(), dim=1), F.normalize(self.weight.float(), dim=1))
            return self.scale.float() * cosines
