"""Losses of the heads, computed in float32 for any precision of the network.

Shapes: B images, A references of an image (anchors or locations), P positive references, K classes, N boxes or sides of
boxes, n + 1 bins of a distribution, R regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.models.assigners.matching import Positives
from tldet.models.boxes import area, product
from tldet.models.ops.focal import background_sums

_MOMENTUM = 0.9  # of the running means, which cover about ten steps
SLOW = 0.99  # in validation, whose losses are compared over a run: means over ten steps vary by several percent
STATE = ("sums", "weights", "slow_sums", "slow_weights")
Normalizer = Literal["running", "batch"]
POSITIVES = 100.0  # positives per image of a one-stage head assumed before the first step


class LossNormalizers(nn.Module):
    """Divisors of the losses of a head, one for each count.

    If a loss is divided by the number of positives in its batch, the weight of an image depends on the batch size, and
    an image without objects can outweigh others by a factor of hundreds. Here the divisor is a running mean of the
    positives per image over previous optimizer steps (as in Detectron2's dense detectors), times the number of images,
    so that the loss of a batch is a mean over images.

    Outside of a training run, the count of the batch is the divisor, as for "batch". Validation during a run (eval
    mode) uses means over about a hundred steps and does not change them. The means are not part of the model's state
    dict: a checkpoint stores them in its training state.

    Args:
        kind: "running", or "batch" for the count of the batch (mmdet, torchvision).
        initial: count per image assumed before the first step, by name. It has the weight of one step, so that a first
            step with few positives does not inflate the loss of the second one. Choose it rather too high: a high
            value weakens one step, a low one disturbs Adam's second moments for many steps.
    """

    def __init__(self, kind: Normalizer, **initial: float) -> None:
        super().__init__()
        self.kind = kind
        self.started = self.counting = False
        self.sums, self.weights = dict(initial), dict.fromkeys(initial, 1.0)
        self.slow_sums, self.slow_weights = dict.fromkeys(initial, 0.0), dict.fromkeys(initial, 0.0)
        self.counted: dict[str, float | Tensor] = dict.fromkeys(initial, 0.0)

    def divisor(
        self, name: str, count: float | Tensor, images: int, *, batch: float | Tensor | None = None
    ) -> float | Tensor:
        """Return the divisor of a loss that is summed over a batch.

        Args:
            name: name of the count.
            count: count in this batch.
            images: number of images in this batch.
            batch: divisor for kind "batch"; None takes the count, at least 1.
        """
        if self.kind == "running" and self.counting:
            self.counted[name] = self.counted[name] + (count.detach() if isinstance(count, Tensor) else count)
        if self.kind == "running" and self.started:
            return self.mean(name) * images
        if batch is not None:
            return batch
        return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)

    def mean(self, name: str) -> float:
        """Return the running mean of a count per image; in eval mode the slow one, once a step has been counted."""
        if self.slow_weights[name] and not self.training:
            return self.slow_sums[name] / self.slow_weights[name]
        return self.sums[name] / self.weights[name]

    def update(self, name: str, count: float) -> None:
        """Update a running mean with the count per image of one step, unless that is 0.

        Steps without any object would lower the mean and so inflate later losses.
        """
        if not 0 < count < math.inf:
            return
        for keep, sums, weights in (
            (_MOMENTUM, self.sums, self.weights),
            (SLOW, self.slow_sums, self.slow_weights),
        ):
            sums[name] = keep * sums[name] + count
            weights[name] = keep * weights[name] + 1

    def means_state(self) -> dict[str, dict[str, float]]:
        """Return the running means as plain containers."""
        return {part: dict(getattr(self, part)) for part in STATE}


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
