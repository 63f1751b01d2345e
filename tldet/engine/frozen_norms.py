"""Frozen BatchNorms computed by the convolutions before them, while the rest of the model learns.

A BatchNorm whose statistics, factor and summand stay as they are makes ``scale * (W * x) + shift`` of a convolution's
``W * x``, which is ``(scale W) * x + shift``. Computed in that way a training step passes over the feature maps once
less forward and once less backward, and keeps one map less; the gradient of ``W`` is ``scale`` times that of
``scale W``. What learns, and what a checkpoint holds, stays the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from tldet.engine.fuse import activation_of, norms_after, on_cpu, probe, same_maps
from tldet.models.modes import evaluating

log = logging.getLogger(__name__)


def fold_frozen_norms(backbone: nn.Module) -> int:
    """Have the convolutions of a backbone compute the frozen norms behind them, in place.

    A norm that learns again, or its statistics, is computed by itself from then on. Where the outputs would change, or
    the backbone takes no small pictures, it stays as it was, and the log says so. A folded one can be copied and its
    state saved, but it cannot be pickled.

    Returns:
        How many norms were folded.
    """
    if not any(_is_frozen(norm) for norm in backbone.modules()):
        return 0
    with on_cpu(backbone), evaluating(backbone), torch.no_grad():
        example = probe(backbone)
        found = norms_after(backbone, lambda: backbone(example))
        pairs = [(conv, norm) for conv, norm in found if type(conv) is nn.Conv2d and _is_frozen(norm)]
        if not pairs:
            return 0
        with _lively([norm for _, norm in pairs]):
            before = backbone(example)
            for conv, norm in pairs:
                _fold(conv, norm)
            same = same_maps(before, backbone(example))
        if not same:
            log.warning("frozen BatchNorm is not folded: %s would give other outputs", type(backbone).__name__)
            for conv, norm in pairs:
                _unfold(cast(FoldedConv2d, conv), cast(_FoldedNorm, norm))
    return len(pairs) if same else 0


@contextmanager
def _lively(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Let norms change their input for a while: neutral ones, filled later, would hide what folding does."""
    tensors = [t for norm in norms for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    values = [(cast(Tensor, tensor), cast(Tensor, tensor).clone()) for tensor in tensors]
    generator = torch.Generator().manual_seed(0)
    for tensor, before in values:
        tensor.copy_(torch.rand(before.shape, generator=generator) + 0.5)
    try:
        yield
    finally:
        for tensor, before in values:
            tensor.copy_(before)


def _is_frozen(norm: nn.Module) -> bool:
    """Whether it is a BatchNorm with statistics, a factor and a summand that all stay as they are."""
    if not isinstance(norm, nn.BatchNorm2d) or not norm.affine or not norm.track_running_stats or norm.training:
        return False
    return not norm.weight.requires_grad and not norm.bias.requires_grad


class FoldedConv2d(nn.Conv2d):
    """A convolution that computes the norm behind it too, while that is frozen."""

    norm_behind: tuple[nn.BatchNorm2d]  # in a tuple, so that it is no part of this module

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to what the norm gives out."""
        (norm,) = self.norm_behind
        if not _is_frozen(norm):
            return super().forward(x)
        scale = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps) * norm.weight
        mean = cast(Tensor, norm.running_mean)
        shift = norm.bias - (mean if self.bias is None else mean - self.bias) * scale
        return cast(Tensor, self._conv_forward(x, self.weight * scale[:, None, None, None], shift))


class _FoldedNorm(nn.BatchNorm2d):
    """A norm whose convolution computes it while it is frozen."""

    folded = True
    rest: tuple[nn.Module]  # what it does besides

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.rest[0](x)) if _is_frozen(self) else super().forward(x)


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    kind = type(norm)
    conv.__class__, norm.__class__ = FoldedConv2d, type(f"Folded{kind.__name__}", (_FoldedNorm, kind), {})
    cast(FoldedConv2d, conv).norm_behind, cast(_FoldedNorm, norm).rest = (norm,), (activation_of(norm),)


def _unfold(conv: FoldedConv2d, norm: _FoldedNorm) -> None:
    del conv.norm_behind, norm.rest
    conv.__class__ = nn.Conv2d  # type: ignore[assignment]
    norm.__class__ = type(norm).__bases__[1]
