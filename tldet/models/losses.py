"""Loss functions that more than one head uses and torch lacks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss_sum(logits: Tensor, rows: Tensor, labels: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss (Lin et al. 2017, equation 5), summed.

    Every entry is background but those at ``(rows, labels)``: so no one-hot target of the logits' size is made.

    Args:
        logits: (A, K) raw scores of the references that count.
        rows: (P,) rows that hold an object.
        labels: (P,) its class.
        alpha: weight of positives (1 - alpha for background).
        gamma: how much easy entries are damped.
    """
    logits = logits.float()
    background = (1 - alpha) * (torch.sigmoid(logits) ** gamma * F.softplus(logits)).sum()
    at = logits[rows, labels]
    there = (1 - alpha) * torch.sigmoid(at) ** gamma * F.softplus(at)
    here = alpha * torch.sigmoid(-at) ** gamma * F.softplus(-at)
    return background + (here - there).sum()
