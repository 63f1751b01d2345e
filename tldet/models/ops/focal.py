"""Background term of focal losses: a hand-written kernel and its reference version.

Shapes: B images, A references (anchors or locations), K classes, P positive references.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tldet.models.assigners.matching import Positives

FOCAL_BLOCK = 2**18  # logits processed together on a CPU: intermediate results stay in its cache


def background_sums(logits: Tensor, power: float, positives: Positives) -> tuple[Tensor, Tensor]:
    """Sum sigmoid(x)^power * softplus(x) over the background entries of each image, and gather the positives' logits.

    An entry is a pair of a reference and a class. Entries of ignored references and of classes that are not annotated
    on the image are left out.

    Args:
        logits: (B, A, K).
        power: exponent.
        positives: the positive references; each has one entry that is not background.

    Returns:
        Sums (B,) and logits (P,), both float32 and differentiable.
    """
    sums, at = _Background.apply(logits, power, positives)
    return sums, at


def background_sums_reference(logits: Tensor, power: float, positives: Positives) -> tuple[Tensor, Tensor]:
    """Compute :func:`background_sums` in plain torch (the reference); needs ten tensors of the size of the logits."""
    x, objects = logits.float(), (positives.image, positives.reference, positives.labels)
    entries = positives.valid[..., None].expand(logits.shape)
    entries = entries if positives.annotated is None else entries & positives.annotated[:, None]
    background = entries.index_put(objects, entries.new_zeros(()))
    values = torch.sigmoid(x) ** power * F.softplus(x)
    return torch.where(background, values, 0).sum((1, 2)), x[objects]


class _Background(torch.autograd.Function):
    """Sums and their gradient, computed in one pass over blocks."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, power: float, positives: Positives) -> tuple[Tensor, Tensor]:
        """Compute the gradient of the sums too, if it is needed."""
        # float16 would lose the gradient of an easy entry before the loss is scaled; bfloat16 has float32's range
        kept = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        slope = torch.empty_like(logits, dtype=kept) if ctx.needs_input_grad[0] else None
        rows = max(1, FOCAL_BLOCK // logits.shape[-1]) if logits.device.type == "cpu" else max(1, logits.shape[1])
        sums = []
        for image, valid in enumerate(positives.valid):
            known = positives.annotated
            excluded = ~valid[:, None] if known is None else ~(valid[:, None] & known[image])
            slopes: Iterable[Tensor | None] = repeat(None) if slope is None else torch.split(slope[image], rows)
            blocks = zip(torch.split(logits[image], rows), torch.split(excluded, rows), slopes, strict=False)
            sums.append(torch.stack([_add_block(x.float(), power, drop, out) for x, drop, out in blocks]).sum())
        objects = (positives.image, positives.reference, positives.labels)
        at = logits[objects].float()
        there = torch.sigmoid(at) ** power * F.softplus(at)
        if positives.annotated is not None:
            there = there * positives.annotated[positives.image, positives.labels]  # other classes are not in the sums
        ctx.save_for_backward(slope, *objects)
        ctx.dtype = logits.dtype
        return torch.stack(sums).index_add(0, positives.image, -there), at

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sums: Tensor, of_at: Tensor) -> tuple[Tensor, None, None]:
        """Scale the saved gradients; the gradient of a positive entry comes from ``at`` only."""
        slope, *objects = ctx.saved_tensors
        gradient = torch.empty_like(slope, dtype=ctx.dtype)
        if slope.device.type == "cpu":
            for image, factor in enumerate(of_sums):  # a scalar: a tensor would convert everything to float32 and back
                torch.mul(slope[image], factor, out=gradient[image])
        else:
            torch.mul(slope, of_sums[:, None, None], out=gradient)
        return gradient.index_put_(tuple(objects), of_at.to(ctx.dtype)), None, None


def _add_block(x: Tensor, power: float, excluded: Tensor, slope: Tensor | None) -> Tensor:
    """Sum over a block (n, K) without the excluded entries; writes the gradient to ``slope``."""
    score, soft = torch.sigmoid(x), F.softplus(x)
    damping = score**power
    if slope is not None:
        rising = (1 - score).mul_(soft).mul_(power).add_(score).mul_(damping)
        slope.copy_(rising.masked_fill_(excluded, 0))
    return damping.mul_(soft).masked_fill_(excluded, 0).sum()
