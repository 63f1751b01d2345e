"""Folding of frozen BatchNorms into the convolutions before them, for training.

After a convolution ``W * x``, a frozen BatchNorm computes ``scale * (W * x) + shift``, which equals
``(scale W) * x + shift``. This form saves one pass over the feature maps in forward and backward, and one stored map;
the gradient of ``W`` is ``scale`` times that of ``scale W``. Trainable parameters and checkpoints stay the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tldet.models.modes import evaluating
from tldet.models.surgery.fuse import activation_of, norms_after, on_cpu, probe, same_maps
from tldet.models.surgery.overlay import Overlay, overlay, put_back, replace_modules

log = logging.getLogger(__name__)


def fold_frozen_norms(backbone: nn.Module) -> int:
    """Replace frozen norms of a backbone, and the convolutions before them by ones that compute these norms too.

    Parameters, buffers and state-dict keys stay the same. A norm that becomes trainable, or is set to training mode, is
    computed separately again. If the outputs would change, or the backbone does not support small images, nothing is
    replaced.

    Returns:
        Number of norms folded.
    """
    if not any(_is_frozen(norm) for norm in backbone.modules()):
        return 0
    with on_cpu(backbone), evaluating(backbone), torch.no_grad():
        example = probe(backbone)
        found = norms_after(backbone, lambda: backbone(example))
        pairs = [(conv, norm) for conv, norm in found if type(conv) is nn.Conv2d and _is_frozen(norm)]
        if not pairs:
            return 0
        folded = _folded(pairs)
        with _random_norms([norm for _, norm in pairs]):
            before = backbone(example)
            replaced = replace_modules(backbone, folded)
            same = same_maps(before, backbone(example))
        if not same:
            log.debug("frozen BatchNorm is not folded: outputs of %s would change", type(backbone).__name__)
            put_back(replaced)
    for old, new in folded.items():
        new.training = old.training
    return len(pairs) if same else 0


def _folded(pairs: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> dict[nn.Module, nn.Module]:
    """Create the replacements of convolutions and norms."""
    replacements: dict[nn.Module, nn.Module] = {}
    for conv, norm in pairs:
        skipped = overlay(norm, FoldedNorm, rest=(activation_of(norm),))
        replacements[norm] = skipped
        replacements[conv] = overlay(conv, FoldedConv2d, norm_after=(skipped,))
    return replacements


@contextmanager
def _random_norms(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Randomize norms inside the ``with`` block: norms that are still the identity would hide errors of folding."""
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
    """Return True for a BatchNorm in eval mode with frozen weight and bias."""
    if not isinstance(norm, nn.BatchNorm2d) or not norm.affine or not norm.track_running_stats or norm.training:
        return False
    return not norm.weight.requires_grad and not norm.bias.requires_grad


class FoldedConv2d(Overlay):
    """Overlay of a convolution that also computes the norm after it while that norm is frozen."""

    name_prefix = "Folded"
    norm_after: tuple[nn.BatchNorm2d]  # in a tuple, so that it is not a submodule

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the output of the norm."""
        (norm,) = self.norm_after
        conv: Any = self
        if not _is_frozen(norm):
            return cast(Tensor, super().forward(x))
        scale = torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps) * norm.weight
        mean = cast(Tensor, norm.running_mean)
        shift = norm.bias - (mean if conv.bias is None else mean - conv.bias) * scale
        return cast(Tensor, conv._conv_forward(x, conv.weight * scale[:, None, None, None], shift))


class FoldedNorm(Overlay):
    """Overlay of a norm that its convolution computes while it is frozen."""

    name_prefix = "Folded"
    folded = True
    rest: tuple[nn.Module]  # dropout and activation that belong to the norm

    def forward(self, x: Tensor) -> Tensor:
        """Apply the parts of the norm that are not folded to (B, C, H, W)."""
        return cast(Tensor, self.rest[0](x) if _is_frozen(self) else super().forward(x))
