"""Losses that several heads share. All are computed in float32, whatever the network ran in.

Letters for shapes: N boxes or sides of boxes, P places that hold an object, A references, K classes, n + 1 bins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-7  # keeps the division finite where a box has no area; torchvision's constant


def overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union (N,) of the boxes of two lists (N, 4), row by row."""
    low = torch.maximum(boxes[:, :2], others[:, :2])
    high = torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1) + (others[:, 2:] - others[:, :2]).prod(-1)
    return shared, areas - shared


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(N,) intersection over union of the boxes of two lists (N, 4), row by row."""
    shared, union = overlap(boxes, others)
    return shared / (union + EPS)


def giou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """(N,) one minus the generalised IoU (Rezatofighi et al. 2019), row by row; 0 where equal, at most 2.

    Args:
        boxes: (N, 4) xyxy, of any unit.
        others: (N, 4) xyxy of the same unit.
    """
    shared, union = overlap(boxes, others)
    low = torch.minimum(boxes[:, :2], others[:, :2])
    high = torch.maximum(boxes[:, 2:], others[:, 2:])
    hull = (high - low).prod(-1)
    return 1 - shared / (union + EPS) + (hull - union) / (hull + EPS)


def quality_focal_loss_sum(logits: Tensor, rows: Tensor, labels: Tensor, quality: Tensor, *, beta: float) -> Tensor:
    """Quality focal loss (Li et al. 2020, equation 2), summed: the class score learns how good the box is.

    Args:
        logits: (A, K) raw scores of the references that count; all entries are background but those at
            ``(rows, labels)``.
        rows: (P,) rows that hold an object.
        labels: (P,) its class.
        quality: (P,) what the score should be, in 0..1.
        beta: how much entries that are nearly right are damped.
    """
    logits = logits.float()
    background = (torch.sigmoid(logits) ** beta * F.softplus(logits)).sum()
    at = logits[rows, labels]
    score = torch.sigmoid(at)
    there = score**beta * F.softplus(at)
    here = (quality - score).abs() ** beta * F.binary_cross_entropy_with_logits(at, quality, reduction="none")
    return background + (here - there).sum()


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """(N,) distribution focal loss (Li et al. 2020, equation 6): weight on the two bins around the true distance.

    Args:
        logits: (N, n + 1) raw probabilities of the distances 0..n.
        distances: (N,) true distances, 0 <= distance < n.
    """
    log_probability = logits.float().log_softmax(-1)
    below = distances.long()
    share = distances - below  # of the bin above
    around = torch.stack([below, below + 1], -1)
    return -(log_probability.gather(-1, around) * torch.stack([1 - share, share], -1)).sum(-1)
