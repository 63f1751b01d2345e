"""Losses of the heads, all in float32 whatever the precision of the network; the focal losses are in ops/focal.py.

Letters for shapes: N boxes or sides of boxes, K classes, n + 1 bins, B images, R regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.models.boxes import area, product

_EPS = 1e-7  # keeps the division finite where a box has no area; torchvision's constant


def overlap(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union (N,) of the boxes of two lists (N, 4), row by row."""
    low = torch.maximum(boxes[:, :2], others[:, :2])
    high = torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = product((high - low).clamp(min=0))
    return shared, area(boxes) + area(others) - shared


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(N,) intersection over union of the boxes of two lists (N, 4), row by row."""
    shared, union = overlap(boxes, others)
    return shared / (union + _EPS)


def giou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """(N,) one minus the generalised IoU (Rezatofighi et al. 2019), row by row; 0 where equal, at most 2.

    Args:
        boxes: (N, 4) xyxy, of any unit.
        others: (N, 4) xyxy of the same unit.
    """
    shared, union = overlap(boxes, others)
    low = torch.minimum(boxes[:, :2], others[:, :2])
    high = torch.maximum(boxes[:, 2:], others[:, 2:])
    hull = product(high - low)
    return 1 - shared / (union + _EPS) + (hull - union) / (hull + _EPS)


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


def class_loss_sum(logits: Tensor, labels: Tensor, labeled: Sequence[Tensor | None], rows: Sequence[int]) -> Tensor:
    """Cross entropy, summed; background means "background or a class that the image was not labeled for".

    A background region of such an image learns -log(p_background + the sum of p_k over these classes k), an object
    -log(p_class) as ever (Zhao et al. 2020, Object detection with a unified label space from multiple datasets,
    section 3.3; Cermelli et al. 2020, Modeling the background for incremental learning, equation 5). The gradient of
    the first with respect to the logit of such a class is at most 0: no step pushes it down.

    Args:
        logits: (R, K + 1), background last.
        labels: (R,) 0..K-1, K for background.
        labeled: of each of the B images (K,) bool, or None for all classes.
        rows: B; how many of the regions are each image's, in this order.
    """
    if all(classes is None for classes in labeled):
        return F.cross_entropy(logits, labels, reduction="sum")
    background = logits.shape[1] - 1
    parts = zip(*(torch.split(values, list(rows)) for values in (logits.log_softmax(-1), labels)), labeled, strict=True)
    said = []  # the log probabilities of what is known
    for chance, label, classes in parts:
        own = chance.gather(1, label[:, None]).squeeze(1)
        if classes is not None:
            open_to = torch.cat([~classes, classes.new_ones(1)])  # (K + 1,) what background may be
            own = torch.where(label == background, chance.masked_fill(~open_to, -torch.inf).logsumexp(1), own)
        said.append(own)
    return -torch.cat(said).sum()
