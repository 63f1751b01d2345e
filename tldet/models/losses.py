"""Losses of the heads, computed in float32 for any precision of the network.

Shapes: B images, A references of an image (anchors or locations), P positive references, K classes, N boxes or sides of
boxes, n + 1 bins of a distribution, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.models.assigners.matching import Positives
from tldet.models.boxes import area, product
from tldet.models.ops.focal import background_sums

_EPS = 1e-7  # keeps the division finite for boxes without area; torchvision's constant


def focal_loss(logits: Tensor, positives: Positives, *, alpha: float, gamma: float) -> Tensor:
    """Compute the sigmoid focal loss of each image (Lin et al. 2017, equation 5).

    Args:
        logits: (B, A, K).
        positives: positive references; all other entries that are not ignored are background.
        alpha: weight of positives (1 - alpha for background).
        gamma: exponent that reduces the loss of easy entries.

    Returns:
        (B,) sums over the entries.
    """
    background, at = background_sums(logits, gamma, positives)
    here = torch.sigmoid(-at) ** gamma * F.softplus(-at)
    return torch.as_tensor((1 - alpha) * background + alpha * _per_image(here, positives))


def quality_focal_loss(logits: Tensor, positives: Positives, quality: Tensor, *, beta: float) -> Tensor:
    """Compute the quality focal loss of each image (Li et al. 2020, equation 2): scores predict the IoU of the box.

    Args:
        logits: (B, A, K).
        positives: see :func:`focal_loss`.
        quality: (P,) target score of each positive, in 0..1.
        beta: exponent that reduces the loss of entries close to their target.

    Returns:
        (B,) sums over the entries.
    """
    background, at = background_sums(logits, beta, positives)
    damping = (quality - torch.sigmoid(at)).abs() ** beta
    here = damping * F.binary_cross_entropy_with_logits(at, quality, reduction="none")
    return torch.as_tensor(background + _per_image(here, positives))


def _per_image(values: Tensor, positives: Positives) -> Tensor:
    """Sum the values (P,) of the positives of each image, (B,)."""
    return values.new_zeros(len(positives.valid)).index_add(0, positives.image, values)


def overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return intersection and union (N,) of paired boxes (N, 4)."""
    low = torch.maximum(boxes[:, :2], others[:, :2])
    high = torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = product((high - low).clamp(min=0))
    return shared, area(boxes) + area(others) - shared


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union (N,) of paired boxes (N, 4)."""
    shared, union = overlap(boxes, others)
    return shared / (union + _EPS)


def giou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute 1 - generalized IoU (N,) of paired boxes (Rezatofighi et al. 2019); 0 for equal boxes, at most 2.

    Args:
        boxes: (N, 4) xyxy in any unit.
        others: (N, 4) xyxy in the same unit.
    """
    shared, union = overlap(boxes, others)
    low = torch.minimum(boxes[:, :2], others[:, :2])
    high = torch.maximum(boxes[:, 2:], others[:, 2:])
    hull = product(high - low)
    return 1 - shared / (union + _EPS) + (hull - union) / (hull + _EPS)


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Compute the distribution focal loss (N,) of distances (Li et al. 2020, equation 6).

    It is the cross entropy of the two bins around the true distance, weighted by linear interpolation.

    Args:
        logits: (N, n + 1) logits of the distances 0..n.
        distances: (N,) true distances, 0 <= distance < n.
    """
    log_probability = logits.float().log_softmax(-1)
    below = distances.long()
    share = distances - below  # weight of the bin above
    around = torch.stack([below, below + 1], -1)
    return -(log_probability.gather(-1, around) * torch.stack([1 - share, share], -1)).sum(-1)


def class_loss_sum(logits: Tensor, labels: Tensor, annotated: Sequence[Tensor | None], rows: Sequence[int]) -> Tensor:
    """Sum the cross entropy, with background as "background or a class that is not annotated on the image".

    The loss of a background region is -log(p_background + the sum of p_k over these classes k), that of an object is
    -log(p_class) (Zhao et al. 2020, Object detection with a unified label space from multiple datasets, section 3.3;
    Cermelli et al. 2020, Modeling the background for incremental learning, equation 5). The gradient of the first with
    respect to the logit of such a class is at most 0: no step reduces its score.

    Args:
        logits: (R, K + 1), background last.
        labels: (R,) 0..K-1, K for background.
        annotated: (K,) bool for each of the B images, or None if all classes are annotated.
        rows: number of regions of each image, in this order.
    """
    if all(classes is None for classes in annotated):
        return F.cross_entropy(logits, labels, reduction="sum")
    background = logits.shape[1] - 1
    images = [torch.split(values, list(rows)) for values in (logits.log_softmax(-1), labels)]
    terms = []
    for log_probability, label, classes in zip(*images, annotated, strict=True):
        own = log_probability.gather(1, label[:, None]).squeeze(1)
        if classes is not None:
            included = torch.cat([~classes, classes.new_ones(1)])  # (K + 1,) classes that background may be
            merged = log_probability.masked_fill(~included, -torch.inf).logsumexp(1)
            own = torch.where(label == background, merged, own)
        terms.append(own)
    return -torch.cat(terms).sum()
