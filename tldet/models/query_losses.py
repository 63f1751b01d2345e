"""Hungarian matching and losses of query-based detectors (DETR, Carion et al. 2020; D-FINE, Peng et al. 2024).

An assignment is a (B, Q) tensor: the object of each query, or NONE. It is the same for matched and for denoising
queries, so that all losses are computed for the whole batch at once.

Letters for shapes: B images, Q queries, G objects of the image that has most (at least 1), K classes, P pairs of a
query and an object in the batch, N predictions of the same images, n + 1 bins of a distribution. Boxes are given by
center and extent, in shares of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tldet.models.boxes import area, center_form, corners_of
from tldet.models.losses import giou_loss, paired_iou
from tldet.models.query_decoder import Prediction
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import constant, send

NONE = -1
ClassLoss = Literal["vfl", "mal"]
_TEMPERATURE = 5.0  # of the distributions in self-distillation (D-FINE, equation 6)
_SCALE = 1000.0  # boxes are compared in thousandths of the image, far above the constants that avoid divisions by 0
_LOG = 1e-8
_LARGEST = 1e9  # cost of a prediction that is not finite


class PaddedTargets(NamedTuple):
    """Ground truth of a batch, padded to G objects per image."""

    boxes: Tensor  # (B, G, 4)
    labels: Tensor  # (B, G)
    counts: list[int]  # B


def objects_of(targets: Sequence[Target], size: Size) -> PaddedTargets:
    """Return the objects of a batch, without crowd regions, in shares of the padded image.

    Args:
        targets: ground truth of each image, pixels.
        size: height and width of the padded image.
    """
    boxes = [target.boxes[target.known.objects] for target in targets]
    labels = [target.labels[target.known.objects] for target in targets]
    corners = pad_sequence([*boxes, boxes[0].new_zeros(1, 4)], batch_first=True)[:-1]  # G is at least 1
    corners = corners / constant([size[1], size[0]] * 2, corners)
    center, extent = center_form(corners)
    padded = pad_sequence([*labels, labels[0].new_zeros(1)], batch_first=True)[:-1]
    return PaddedTargets(torch.cat([center, extent], -1), padded, [len(one) for one in boxes])


class MatchedQueries(NamedTuple):
    """Queries that predict an object, with the object."""

    image: Tensor  # (P,)
    query: Tensor  # (P,)
    boxes: Tensor  # (P, 4)
    labels: Tensor  # (P,)

    def of(self, values: Tensor) -> Tensor:
        """(B, Q, ...) predictions to the (P, ...) float32 of the pairs."""
        return values[self.image, self.query].float()


class MatchCosts(NamedTuple):
    """Weights of the matching costs, and the focal parameters of the class cost."""

    classes: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0


@torch.no_grad()
def match_queries(predictions: Sequence[Prediction], objects: PaddedTargets, costs: MatchCosts) -> Tensor:
    """Match each object to one query of each prediction at the least total cost (Carion et al. 2020, section 3.1).

    The costs of all predictions and images are computed in one go and copied to the host once. SciPy solves one
    assignment for each prediction and image: it has no batched solver.

    Args:
        predictions: N predictions.
        objects: the ground truth.
        costs: see :class:`MatchCosts`.

    Returns:
        (N, B, Q) int64: the object of each query, or NONE.
    """
    from scipy.optimize import linear_sum_assignment  # takes time that other heads do not need

    logits = torch.stack([one.logits for one in predictions]).float()  # (N, B, Q, K)
    boxes = torch.stack([one.boxes for one in predictions]).float()
    assigned = torch.full(logits.shape[:3], NONE)
    if max(objects.counts, default=0):
        cost = _costs(logits, boxes, objects, costs).cpu().numpy()
        for number, image in ((n, i) for n in range(len(cost)) for i in range(len(objects.counts))):
            queries, found = linear_sum_assignment(cost[number, image, :, : objects.counts[image]])
            assigned[number, image, torch.from_numpy(queries)] = torch.from_numpy(found)
    return send(assigned, logits.device)


def _costs(logits: Tensor, boxes: Tensor, objects: PaddedTargets, costs: MatchCosts) -> Tensor:
    """(N, B, Q, G) matching costs of (N, B, Q, K) logits and (N, B, Q, 4) boxes."""
    labels = objects.labels.expand(len(logits), -1, -1)[:, :, None].expand(-1, -1, logits.shape[2], -1)
    chance = logits.sigmoid().gather(-1, labels)
    absent = (1 - costs.alpha) * chance**costs.gamma * -(1 - chance + _LOG).log()
    present = costs.alpha * (1 - chance) ** costs.gamma * -(chance + _LOG).log()
    l1 = (boxes[..., None, :] - objects.boxes[None, :, None]).abs().sum(-1)
    overlap = _pairwise_giou(corners_of(boxes), corners_of(objects.boxes))
    cost = costs.classes * (present - absent) + costs.l1 * l1 - costs.giou * overlap
    return cost.nan_to_num(_LARGEST, _LARGEST, _LARGEST)


def _pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """(N, B, Q, G) generalized IoU of (N, B, Q, 4) and (B, G, 4) corners."""
    a, b = boxes[..., None, :], others[None, :, None]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = area(a) + area(b) - shared
    return shared / union - (hull - union) / hull


def merged(assigned: Tensor, objects: int) -> Tensor:
    """Unite the assignments of all layers (D-FINE, section 4.2): a query takes the object that most layers gave it.

    Args:
        assigned: (N, B, Q) object of each query, or NONE.
        objects: G.

    Returns:
        (B, Q) int64, the object of each query, or NONE; several queries may have the same object.
    """
    if not objects:
        return assigned[0]
    given = (assigned + 1).permute(1, 2, 0)  # (B, Q, N)
    votes = given.new_zeros(*given.shape[:2], objects + 1).scatter_add_(2, given, torch.ones_like(given))[..., 1:]
    most, best = votes.max(-1)
    return torch.where(most > 0, best, NONE)


def pairs_of(assigned: Tensor, objects: PaddedTargets) -> MatchedQueries:
    """Return the pairs of a (B, Q) assignment."""
    image, query = (assigned != NONE).nonzero(as_tuple=True)
    number = assigned[image, query]
    return MatchedQueries(image, query, objects.boxes[image, number], objects.labels[image, number])


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
    """(B, Q, K) classification loss whose target is the IoU of the predicted box.

    Args:
        logits: (B, Q, K).
        pairs: queries that predict an object.
        quality: (P,) IoU of the predicted box with its object.
        counted: (B, Q, K) bool, false for what may or may not be an object; None counts all.
        kind: "vfl": varifocal loss (Zhang et al. 2021, equation 2) with weights as in RT-DETR; "mal":
            matchability-aware loss (Huang et al. 2025, DEIM, equation 3).
        alpha: weight of negatives in the varifocal loss.
        gamma: exponent that lowers the weight of easy negatives; in "mal" also of the target.
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
    """L1 loss and GIoU loss (P,) of the (B, Q, 4) boxes of the pairs."""
    mine = pairs.of(boxes)
    l1 = (mine - pairs.boxes).abs().sum(-1)
    return l1, giou_loss(corners_of(mine) * _SCALE, corners_of(pairs.boxes) * _SCALE)


def pair_iou(boxes: Tensor, pairs: MatchedQueries) -> Tensor:
    """(P,) IoU of the (B, Q, 4) boxes of the pairs with their objects."""
    return paired_iou(corners_of(pairs.of(boxes)) * _SCALE, corners_of(pairs.boxes) * _SCALE)


def fine_grained_loss(
    corners: Tensor, origins: Tensor, pairs: MatchedQueries, values: Tensor, reg_scale: Tensor
) -> Tensor:
    """(P,) fine-grained localization loss (D-FINE, equation 4) without its factor IoU, summed over the four sides.

    Args:
        corners: (B, Q, 4 * (n + 1)) logits.
        origins: (B, Q, 4) boxes that the distributions refine.
        pairs: queries that predict an object.
        values: (n + 1,) of the bins, rising.
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
    """Terms (B, Q) of localization self-distillation from the last layer (D-FINE, equation 6), and who is matched.

    Args:
        corners: (B, Q, 4 * (n + 1)) logits of a layer.
        teacher: prediction of the last layer; it gets no gradient.
        pairs: queries that predict an object.
        quality: (P,) IoU of the layer's box with its object, the weight of a matched query; the weight of the others is
            the teacher's best score.

    Returns:
        weighted divergence, summed over the sides, and (B, Q) bool, the matched queries.
    """
    assert teacher.corners is not None
    shape = (*corners.shape[:2], 4, corners.shape[-1] // 4)
    student = (corners.float() / _TEMPERATURE).view(shape).log_softmax(-1)
    wanted = (teacher.corners.detach().float() / _TEMPERATURE).view(shape).log_softmax(-1)
    divergence = F.kl_div(student, wanted, reduction="none", log_target=True).sum(-1)  # (B, Q, 4)
    weight = teacher.logits.detach().float().sigmoid().amax(-1)
    weight[pairs.image, pairs.query] = quality
    matched = torch.zeros(corners.shape[:2], dtype=torch.bool, device=corners.device)
    matched[pairs.image, pairs.query] = True
    return _TEMPERATURE**2 * divergence.sum(-1) * weight, matched
