"""Focal losses: a hand-written kernel for the background entries, and its reference version.

Letters for shapes: B images, M references (anchors or locations), K classes, P references that hold an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tldet.models.assigners.matching import Learners

FOCAL_BLOCK = 2**18  # logits processed together on a CPU: intermediate results stay in its cache


def focal_loss_sums(logits: Tensor, learn: Learners, *, alpha: float, gamma: float) -> Tensor:
    """(B,) sigmoid focal loss (Lin et al. 2017, equation 5), summed over each image.

    Args:
        logits: (B, M, K).
        learn: references that hold an object; all other entries that count are background.
        alpha: weight of objects (1 - alpha for background).
        gamma: exponent that reduces the loss of easy entries.
    """
    background, at = background_sums(logits, gamma, learn)
    here = torch.sigmoid(-at) ** gamma * F.softplus(-at)
    return torch.as_tensor((1 - alpha) * background + alpha * _per_image(here, learn))


def quality_focal_loss_sums(logits: Tensor, learn: Learners, quality: Tensor, *, beta: float) -> Tensor:
    """(B,) quality focal loss (Li et al. 2020, equation 2), summed over each image: the score predicts the box's IoU.

    Args:
        logits: (B, M, K).
        learn: see :func:`focal_loss_sums`.
        quality: (P,) target score of each object, in 0..1.
        beta: exponent that reduces the loss of entries that are nearly right.
    """
    background, at = background_sums(logits, beta, learn)
    damping = (quality - torch.sigmoid(at)).abs() ** beta
    here = damping * F.binary_cross_entropy_with_logits(at, quality, reduction="none")
    return torch.as_tensor(background + _per_image(here, learn))


def _per_image(values: Tensor, learn: Learners) -> Tensor:
    """(B,) sums over each image of the values (P,) of its objects."""
    return values.new_zeros(len(learn.counted)).index_add(0, learn.image, values)


def background_sums(logits: Tensor, power: float, learn: Learners) -> tuple[Tensor, Tensor]:
    """Sum sigmoid(x)^power * softplus(x) over the background entries of each image, and gather the objects' logits.

    Args:
        logits: (B, M, K).
        power: exponent.
        learn: which references count, and which of them hold an object of which class.

    Returns:
        Sums (B,) and logits (P,), both float32 and differentiable.
    """
    sums, at = _Background.apply(logits, power, learn)
    return sums, at


def background_sums_reference(logits: Tensor, power: float, learn: Learners) -> tuple[Tensor, Tensor]:
    """Compute :func:`background_sums` in plain torch (the reference), with ten tensors of the size of the logits."""
    x, objects = logits.float(), (learn.image, learn.place, learn.labels)
    entries = learn.counted[..., None].expand(logits.shape)
    entries = entries if learn.classes is None else entries & learn.classes[:, None]
    background = entries.index_put(objects, entries.new_zeros(()))
    values = torch.sigmoid(x) ** power * F.softplus(x)
    return torch.where(background, values, 0).sum((1, 2)), x[objects]


class _Background(torch.autograd.Function):
    """Sums and their gradient from one pass over blocks."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, power: float, learn: Learners) -> tuple[Tensor, Tensor]:
        """Compute the gradient of the sums too, if it is needed."""
        # float16 would lose the slope of an easy entry before the loss is scaled; bfloat16 has float32's range
        kept = torch.float32 if logits.dtype == torch.float16 else logits.dtype
        slope = torch.empty_like(logits, dtype=kept) if ctx.needs_input_grad[0] else None
        rows = max(1, FOCAL_BLOCK // logits.shape[-1]) if logits.device.type == "cpu" else max(1, logits.shape[1])
        sums = []
        for image, counted in enumerate(learn.counted):
            spared = ~counted[:, None] if learn.classes is None else ~(counted[:, None] & learn.classes[image])
            slopes: Iterable[Tensor | None] = repeat(None) if slope is None else torch.split(slope[image], rows)
            blocks = zip(torch.split(logits[image], rows), torch.split(spared, rows), slopes, strict=False)
            sums.append(torch.stack([_add_block(x.float(), power, drop, out) for x, drop, out in blocks]).sum())
        objects = (learn.image, learn.place, learn.labels)
        at = logits[objects].float()
        there = torch.sigmoid(at) ** power * F.softplus(at)
        if learn.classes is not None:
            there = there * learn.classes[learn.image, learn.labels]  # the others are not in the sums
        ctx.save_for_backward(slope, *objects)
        ctx.dtype = logits.dtype
        return torch.stack(sums).index_add(0, learn.image, -there), at

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sums: Tensor, of_at: Tensor) -> tuple[Tensor, None, None]:
        """Scale the saved gradients; the gradient of an object's entry comes from ``at`` only."""
        slope, *objects = ctx.saved_tensors
        gradient = torch.empty_like(slope, dtype=ctx.dtype)
        if slope.device.type == "cpu":
            for image, factor in enumerate(of_sums):  # a number; a tensor would copy everything to float32 and back
                torch.mul(slope[image], factor, out=gradient[image])
        else:
            torch.mul(slope, of_sums[:, None, None], out=gradient)
        return gradient.index_put_(tuple(objects), of_at.to(ctx.dtype)), None, None


def _add_block(x: Tensor, power: float, spared: Tensor, slope: Tensor | None) -> Tensor:
    """Sum over a block (n, K) without the spared entries; writes the gradient to ``slope``."""
    score, soft = torch.sigmoid(x), F.softplus(x)
    damping = score**power
    if slope is not None:
        rising = (1 - score).mul_(soft).mul_(power).add_(score).mul_(damping)
        slope.copy_(rising.masked_fill_(spared, 0))
    return damping.mul_(soft).masked_fill_(spared, 0).sum()
