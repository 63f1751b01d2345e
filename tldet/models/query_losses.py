"""Losses of query-based detectors (DETR, Carion et al. 2020; D-FINE, Peng et al. 2024).

Objects are assigned to queries by :mod:`tldet.models.assigners.hungarian`.

Letters for shapes: B images, Q queries, K classes, P pairs of a query and an object in the batch, n + 1 bins of a
distribution. Boxes are (center x, center y, width, height), normalized by the image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.models.assigners.hungarian import NONE, PaddedTargets
from tldet.models.boxes import corners_of, inside_fraction
from tldet.models.losses import giou_loss, paired_iou
from tldet.models.query_decoder import Prediction
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import constant, send

ClassLoss = Literal["vfl", "mal"]
_TEMPERATURE = 5.0  # temperature of self-distillation (D-FINE, equation 6)
_SCALE = 1000.0  # scale of normalized boxes in IoU losses, so that areas are far above their epsilon


class LossScope(NamedTuple):
    """Queries and divisors of the losses of a prediction."""

    truth: PaddedTargets
    scored: Tensor  # (B, Q) object of each query in the classification loss, or NONE
    boxes: Tensor  # (B, Q) the same in the other losses
    counted: Tensor | None  # (B, Q) bool, False for padding
    weights: Tensor | None  # (B,) weight of the queries of an image
    objects: float | Tensor  # divisor of the classification loss
    pairs: float | Tensor  # divisor of the box losses
    matched: float | Tensor  # number of queries with an object
    rest: float | Tensor  # number of queries without an object

    def queries(self, values: Tensor) -> Tensor:
        """Multiply values (B, Q) by the weight of each query."""
        values = values if self.counted is None else values * self.counted
        return values if self.weights is None else values * self.weights[:, None]

    def of(self, values: Tensor, image: Tensor) -> Tensor:
        """Multiply values (P,) by the weights of their images."""
        return values if self.weights is None else values * self.weights[image]

    def distilled(self, terms: Tensor, matched: Tensor) -> Tensor:
        """Average terms (B, Q) of matched and other queries, weighted by the roots of their counts (D-FINE, eq. 6)."""
        terms = terms / 4  # mean over the sides
        terms = terms if self.counted is None else terms * self.counted
        with_object, without = (send(torch.as_tensor(n), terms.device).clamp(min=1) for n in (self.matched, self.rest))
        a, b = with_object.sqrt(), without.sqrt()
        return ((terms * matched).sum() / a + (terms * ~matched).sum() / b) / (a + b)


class MatchedQueries(NamedTuple):
    """Pairs of a query and its object."""

    image: Tensor  # (P,)
    query: Tensor  # (P,)
    boxes: Tensor  # (P, 4)
    labels: Tensor  # (P,)

    def of(self, values: Tensor) -> Tensor:
        """Select the predictions of the pairs: (B, Q, ...) to (P, ...) float32."""
        return values[self.image, self.query].float()


def pairs_of(assigned: Tensor, objects: PaddedTargets) -> MatchedQueries:
    """Return the pairs of a (B, Q) assignment."""
    image, query = (assigned != NONE).nonzero(as_tuple=True)
    number = assigned[image, query]
    return MatchedQueries(image, query, objects.boxes[image, number], objects.labels[image, number])


def background_of(boxes: Tensor, size: Size, targets: Sequence[Target], ignore_iof_thr: float) -> Tensor | None:
    """Return (B, Q, K or 1) bool, False if a query may be an unannotated object; None if all objects are annotated.

    Args:
        boxes: (B, Q, 4) normalized.
        size: (height, width) of the padded image, pixels.
        targets: ground truth of each image.
        ignore_iof_thr: fraction of a box inside a crowd region at or above which it is not trained as background.
    """
    if not any(target.partial or len(target.known.crowds) for target in targets):
        return None
    rows, scale = [], constant([size[1], size[0]] * 2, boxes)
    for box, target in zip(boxes, targets, strict=True):
        outside = inside_fraction(corners_of(box) * scale, target.boxes[target.known.crowds]) < ignore_iof_thr
        known = outside.new_ones(1) if target.labeled is None else target.labeled
        rows.append(outside[:, None] & known)
    wide = max(row.shape[1] for row in rows)
    return torch.stack([row.expand(-1, wide) for row in rows])


def class_loss(
    logits: Tensor,
    pairs: MatchedQueries,
    quality: Tensor,
    counted: Tensor | None,
    *,
    kind: ClassLoss,
    alpha: float,
    gamma: float,
) -> Tensor:
    """Compute the classification loss (B, Q, K), whose target is the IoU of the predicted box.

    Args:
        logits: (B, Q, K).
        pairs: queries that predict an object.
        quality: (P,) IoU of the predicted box with its object.
        counted: (B, Q, K) bool, False for ignored classes, which may not be annotated; None ignores none.
        kind: "vfl": varifocal loss (Zhang et al. 2021, equation 2) with weights as in RT-DETR; "mal":
            matchability-aware loss (Huang et al. 2025, DEIM, equation 3).
        alpha: weight of negatives in the varifocal loss.
        gamma: exponent that reduces the weight of easy negatives; in "mal" also the exponent of the target.
    """
    logits = logits.float()
    target = torch.zeros_like(logits)
    target[pairs.image, pairs.query, pairs.labels] = quality
    weight = logits.detach().sigmoid() ** gamma
    if kind == "vfl":
        weight = alpha * weight
        present = quality
    else:
        target = target**gamma
        present = torch.ones_like(quality)
    if counted is not None:
        weight = weight * counted
    weight[pairs.image, pairs.query, pairs.labels] = present
    return F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")


def query_box_losses(boxes: Tensor, pairs: MatchedQueries) -> tuple[Tensor, Tensor]:
    """Compute L1 loss and GIoU loss, (P,) each, of the pairs' boxes in (B, Q, 4)."""
    mine = pairs.of(boxes)
    l1 = (mine - pairs.boxes).abs().sum(-1)
    return l1, giou_loss(corners_of(mine) * _SCALE, corners_of(pairs.boxes) * _SCALE)


def pair_iou(boxes: Tensor, pairs: MatchedQueries) -> Tensor:
    """Compute the IoU (P,) of the pairs' boxes in (B, Q, 4) with their objects."""
    return paired_iou(corners_of(pairs.of(boxes)) * _SCALE, corners_of(pairs.boxes) * _SCALE)


def fine_grained_loss(
    corners: Tensor, origins: Tensor, pairs: MatchedQueries, values: Tensor, reg_scale: Tensor
) -> Tensor:
    """Compute the fine-grained localization loss (P,), summed over sides, without the factor IoU (D-FINE, equation 4).

    Args:
        corners: (B, Q, 4 * (n + 1)) logits.
        origins: (B, Q, 4) boxes that the distributions refine.
        pairs: queries that predict an object.
        values: (n + 1,) values of the bins, ascending.
        reg_scale: (1,) see :func:`~tldet.models.query_decoder.moved`.
    """
    start, truth = pairs.of(origins), corners_of(pairs.boxes)
    unit = start[:, 2:] / reg_scale + 1e-16
    outwards = torch.cat([start[:, :2] - truth[:, :2], truth[:, 2:] - start[:, :2]], -1)
    distances = outwards / torch.cat([unit, unit], -1) - 0.5 * reg_scale  # (P, 4)
    left = (torch.searchsorted(values, distances.contiguous(), right=True) - 1).clamp(0, len(values) - 2)
    share = ((distances - values[left]) / (values[left + 1] - values[left])).clamp(0, 1)  # of the bin on the right
    log_chance = pairs.of(corners).view(-1, 4, len(values)).log_softmax(-1)
    around = log_chance.gather(-1, torch.stack([left, left + 1], -1))  # (P, 4, 2)
    return -(around * torch.stack([1 - share, share], -1)).sum((1, 2))


def distillation_terms(
    corners: Tensor, teacher: Prediction, pairs: MatchedQueries, quality: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the terms of localization self-distillation from the last layer (D-FINE, equation 6).

    Args:
        corners: (B, Q, 4 * (n + 1)) logits of a layer.
        teacher: prediction of the last layer, without gradient.
        pairs: queries that predict an object.
        quality: (P,) IoU of the layer's box with its object, the weight of a matched query; the weight of other queries
            is the best score of the teacher.

    Returns:
        (B, Q) weighted divergences, summed over sides, and (B, Q) bool, True for matched queries.
    """
    assert teacher.corners is not None
    shape = (*corners.shape[:2], 4, corners.shape[-1] // 4)
    student = (corners.float() / _TEMPERATURE).view(shape).log_softmax(-1)
    reference = (teacher.corners.detach().float() / _TEMPERATURE).view(shape).log_softmax(-1)
    divergence = F.kl_div(student, reference, reduction="none", log_target=True).sum(-1)  # (B, Q, 4)
    weight = teacher.logits.detach().float().sigmoid().amax(-1)
    weight[pairs.image, pairs.query] = quality
    matched = torch.zeros(corners.shape[:2], dtype=torch.bool, device=corners.device)
    matched[pairs.image, pairs.query] = True
    return _TEMPERATURE**2 * divergence.sum(-1) * weight, matched
