"""The focal losses of the one-stage heads, over the classes of every reference; computed in float32.

Letters for shapes: B pictures, M references of a picture, K classes, P references that hold an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tldet.models.dense import Learners

BLOCK = 2**18  # logits looked at together on a processor: what is computed from them stays in its cache


def focal_loss_sums(logits: Tensor, learn: Learners, *, alpha: float, gamma: float) -> Tensor:
    """(B,) sigmoid focal loss (Lin et al. 2017, equation 5), summed over a picture.

    Args:
        logits: (B, M, K) raw scores.
        learn: which references are objects of which class; all other entries that count are background.
        alpha: weight of objects (1 - alpha for background).
        gamma: how much easy entries are damped.
    """
    background, at = _Background.apply(logits, gamma, learn)
    here = torch.sigmoid(-at) ** gamma * F.softplus(-at)
    return torch.as_tensor((1 - alpha) * background + alpha * _per_picture(here, learn))


def quality_focal_loss_sums(logits: Tensor, learn: Learners, quality: Tensor, *, beta: float) -> Tensor:
    """(B,) quality focal loss (Li et al. 2020, equation 2), summed: the class score learns how good the box is.

    Args:
        logits: (B, M, K) raw scores.
        learn: see :func:`focal_loss_sums`.
        quality: (P,) what the score of each object should be, in 0..1.
        beta: how much entries that are nearly right are damped.
    """
    background, at = _Background.apply(logits, beta, learn)
    damping = (quality - torch.sigmoid(at)).abs() ** beta
    here = damping * F.binary_cross_entropy_with_logits(at, quality, reduction="none")
    return torch.as_tensor(background + _per_picture(here, learn))


def _per_picture(values: Tensor, learn: Learners) -> Tensor:
    return values.new_zeros(len(learn.counted)).index_add(0, learn.picture, values)


class _Background(torch.autograd.Function):
    """(B,) sums of sigmoid(x)^power * softplus(x) over the entries that are background, and (P,) logits of the objects.

    Loss and gradient come from one pass over blocks; autograd would write and read ten tensors as large as the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, power: float, learn: Learners) -> tuple[Tensor, Tensor]:
        """Also the gradient of the sums, where one is wanted."""
        # float16 would lose the slope of an easy entry before the loss is scaled; bfloat16 has float32's range
        kept = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        slope = torch.empty_like(logits, dtype=kept) if ctx.needs_input_grad[0] else None
        rows = max(1, BLOCK // logits.shape[-1]) if logits.device.type == "cpu" else max(1, logits.shape[1])
        sums = []
        for picture, counted in enumerate(learn.counted):
            spared = ~counted[:, None] if learn.classes is None else ~(counted[:, None] & learn.classes[picture])
            slopes: Iterable[Tensor | None] = repeat(None) if slope is None else torch.split(slope[picture], rows)
            blocks = zip(torch.split(logits[picture], rows), torch.split(spared, rows), slopes, strict=False)
            sums.append(torch.stack([_add_block(x.float(), power, drop, out) for x, drop, out in blocks]).sum())
        objects = (learn.picture, learn.place, learn.labels)
        at = logits[objects].float()
        there = torch.sigmoid(at) ** power * F.softplus(at)
        if learn.classes is not None:
            there = there * learn.classes[learn.picture, learn.labels]  # the others are not in the sums
        ctx.save_for_backward(slope, *objects)
        ctx.dtype = logits.dtype
        return torch.stack(sums).index_add(0, learn.picture, -there), at

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sums: Tensor, of_at: Tensor) -> tuple[Tensor, None, None]:
        """An object's entry has the gradient of ``at`` alone."""
        slope, *objects = ctx.saved_tensors
        gradient = torch.empty_like(slope, dtype=ctx.dtype)
        torch.mul(slope, of_sums[:, None, None], out=gradient)
        return gradient.index_put_(tuple(objects), of_at.to(ctx.dtype)), None, None


def _add_block(x: Tensor, power: float, spared: Tensor, slope: Tensor | None) -> Tensor:
    """The sum over a block (n, K) but for what is spared; writes the slope."""
    score, soft = torch.sigmoid(x), F.softplus(x)
    damping = score**power
    if slope is not None:
        rising = (1 - score).mul_(soft).mul_(power).add_(score).mul_(damping)
        slope.copy_(rising.masked_fill_(spared, 0))
    return damping.mul_(soft).masked_fill_(spared, 0).sum()
