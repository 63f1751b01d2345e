"""Hungarian matching of queries and objects (DETR, Carion et al. 2020; D-FINE, Peng et al. 2024).

An assignment is a (B, Q) tensor with the object of each query, or NONE. Matched and denoising queries use the same
form, so that all losses are computed for the whole batch at once.

Letters for shapes: B images, Q queries, G objects in the image with the most objects (at least 1), K classes, N
predictions on the same images. Boxes are (center x, center y, width, height), normalized by the image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tldet.models.boxes import area, center_form, corners_of
from tldet.models.query_decoder import Prediction
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import constant, send

NONE = -1
_LOG = 1e-8  # avoids log(0)
_LARGEST = 1e9  # cost of a prediction that is not finite


class PaddedTargets(NamedTuple):
    """Ground truth of a batch, padded to G objects per image."""

    boxes: Tensor  # (B, G, 4)
    labels: Tensor  # (B, G)
    counts: list[int]  # B


def objects_of(targets: Sequence[Target], size: Size) -> PaddedTargets:
    """Return the objects of a batch without crowd regions, normalized by the size of the padded image.

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


class MatchCosts(NamedTuple):
    """Weights of the matching costs, and the focal parameters of the class cost."""

    classes: float = 2.0
    l1: float = 5.0
    giou: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0


@torch.no_grad()
def match_queries(predictions: Sequence[Prediction], objects: PaddedTargets, costs: MatchCosts) -> Tensor:
    """Match each object to one query of each prediction at minimum total cost (Carion et al. 2020, section 3.1).

    The costs of all predictions and images are computed together and copied to the CPU once. SciPy has no batched
    solver, so that each prediction of each image is solved separately.

    Args:
        predictions: N predictions.
        objects: the ground truth.
        costs: see :class:`MatchCosts`.

    Returns:
        (N, B, Q) int64: the object of each query, or NONE.
    """
    from scipy.optimize import linear_sum_assignment  # slow import that other heads do not need

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
    """Compute the matching costs (N, B, Q, G) of logits (N, B, Q, K) and boxes (N, B, Q, 4)."""
    labels = objects.labels.expand(len(logits), -1, -1)[:, :, None].expand(-1, -1, logits.shape[2], -1)
    chance = logits.sigmoid().gather(-1, labels)
    absent = (1 - costs.alpha) * chance**costs.gamma * -(1 - chance + _LOG).log()
    present = costs.alpha * (1 - chance) ** costs.gamma * -(chance + _LOG).log()
    l1 = (boxes[..., None, :] - objects.boxes[None, :, None]).abs().sum(-1)
    overlap = _pairwise_giou(corners_of(boxes), corners_of(objects.boxes))
    cost = costs.classes * (present - absent) + costs.l1 * l1 - costs.giou * overlap
    return cost.nan_to_num(_LARGEST, _LARGEST, _LARGEST)


def _pairwise_giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Compute the generalized IoU (N, B, Q, G) of xyxy boxes (N, B, Q, 4) and (B, G, 4)."""
    a, b = boxes[..., None, :], others[None, :, None]
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = area(a) + area(b) - shared
    return shared / union - (hull - union) / hull


def merged(assigned: Tensor, objects: int) -> Tensor:
    """Merge the assignments of all layers (D-FINE, section 4.2): each query gets its most frequent object.

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
