"""Frozen BatchNorms computed by the convolutions before them, while the rest of the model learns.

A BatchNorm whose statistics, factor and summand stay as they are makes ``scale * (W * x) + shift`` of a convolution's
``W * x``, which is ``(scale W) * x + shift``. Computed in that way a training step passes over the feature maps once
less forward and once less backward, and keeps one map less; the gradient of ``W`` is ``scale`` times that of
``scale W``. What learns, and what a checkpoint holds, stays the same.
"""

from __future__ import annotations

import logging
from typing import cast

import torch
from torch import Tensor, nn

from tldet.engine.fuse import activation_of, norms_after, probe, same_maps
from tldet.models.modes import evaluating

log = logging.getLogger(__name__)


def fold_frozen_norms(backbone: nn.Module) -> int:
    """Have the convolutions of a backbone compute the frozen norms behind them, in place.

    A norm that learns again, or its statistics, is computed by itself from then on. Where the outputs would change, the
    backbone stays as it was, and the log says so.

    Returns:
        How many norms were folded.
    """
    if not any(_is_frozen(norm) for norm in backbone.modules()):
        return 0
    example = probe(backbone)
    with evaluating(backbone), torch.no_grad():
        found = norms_after(backbone, lambda: backbone(example))
        pairs = [(conv, norm) for conv, norm in found if type(conv) is nn.Conv2d and conv.bias is None]
        pairs = [(conv, norm) for conv, norm in pairs if _is_frozen(norm) and conv.padding_mode == "zeros"]
        before, classes = backbone(example), [(module, type(module)) for pair in pairs for module in pair]
        folded = {kind: _folded_class(kind) for kind in {type(norm) for _, norm in pairs}}
        for conv, norm in pairs:
            conv.__class__, norm.__class__ = FoldedConv2d, folded[type(norm)]
            cast(FoldedConv2d, conv).norm_behind = (norm,)
        if same_maps(before, backbone(example)):
            return len(pairs)
    log.warning("frozen BatchNorm is not folded: %s would give other outputs", type(backbone).__name__)
    for module, kind in classes:
        module.__class__ = kind
    return 0


def _is_frozen(norm: nn.Module) -> bool:
    """Whether it is a BatchNorm with statistics, a factor and a summand that all stay as they are."""
    if not isinstance(norm, nn.BatchNorm2d) or not norm.affine or not norm.track_running_stats or norm.training:
        return False
    return not norm.weight.requires_grad and not norm.bias.requires_grad


class FoldedConv2d(nn.Conv2d):
    """A convolution without a bias that computes the norm behind it too, while that is frozen."""

    norm_behind: tuple[nn.BatchNorm2d]  # in a tuple, so that it is no part of this module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to what the norm gives out."""
        (norm,) = self.norm_behind
        if not _is_frozen(norm):
            return super().forward(x)
        scale = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps) * norm.weight
        shift = norm.bias - cast(Tensor, norm.running_mean) * scale
        return cast(Tensor, self._conv_forward(x, self.weight * scale[:, None, None, None], shift))


class _FoldedNorm(nn.BatchNorm2d):
    """A norm whose convolution computes it while it is frozen."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, activation_of(self)(x)) if _is_frozen(self) else super().forward(x)


def _folded_class(kind: type[nn.BatchNorm2d]) -> type[nn.BatchNorm2d]:
    return type(f"Folded{kind.__name__}", (_FoldedNorm, kind), {})
