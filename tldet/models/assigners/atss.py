"""Adaptive training sample selection (Zhang et al. 2020, algorithm 1): an IoU threshold for each object.

Shapes: A anchors of a level, M anchors of all levels, G objects, C candidates of an object.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tldet.models.assigners.matching import BACKGROUND, Positives, gather_positives, ignore_crowds
from tldet.models.boxes import center_form, to_distances
from tldet.models.losses import paired_iou
from tldet.structures.target import Target

_CHUNK = 8_000_000  # elements of a distance matrix per block: 64 MB of offsets
_MARGIN = 0.01  # pixels by which the center of an anchor must lie inside the object


def adaptive_positives(
    levels: Sequence[Tensor], targets: Sequence[Target], *, topk: int, ignore_iof_thr: float
) -> Positives:
    """Gather the positives of a batch; see :func:`assign_adaptively`."""
    matched = [assign_adaptively(levels, one, topk=topk, ignore_iof_thr=ignore_iof_thr) for one in targets]
    return gather_positives(matched, targets)


def assign_adaptively(levels: Sequence[Tensor], target: Target, *, topk: int, ignore_iof_thr: float) -> Tensor:
    """Assign the anchors of an image to its objects.

    The candidates of an object are the ``topk`` anchors of each level with the nearest centers. A candidate is positive
    if its IoU is at least the mean plus the standard deviation of the IoUs of all candidates, and its center lies
    inside the object. An anchor that is positive for several objects is assigned to the one with the highest IoU, the
    first one if there is a tie.

    Args:
        levels: anchors (A, 4) xyxy pixels of each level.
        target: ground truth of the image; rows with ``ignore`` set are never matched.
        topk: number of candidates per level.
        ignore_iof_thr: see :func:`~tldet.models.assigners.matching.ignore_crowds`.

    Returns:
        (M,) int64: row of ``target``, BACKGROUND, or IGNORED.
    """
    rows = target.known.objects
    anchors = torch.cat(list(levels))
    if len(rows):
        parts = torch.split(target.boxes[rows], max(1, _CHUNK // max(len(level) for level in levels)))
        found = [_candidates(levels, anchors, part, topk) for part in parts]
        matched = _resolve(torch.cat([f[0] for f in found]), torch.cat([f[1] for f in found]), len(anchors))
    else:
        matched = rows.new_full((len(anchors),), BACKGROUND)
    return ignore_crowds(matched, rows, anchors, target, ignore_iof_thr=ignore_iof_thr)


def _candidates(levels: Sequence[Tensor], anchors: Tensor, boxes: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """Return the anchors (G, C) of the candidates of each box, and their IoUs (G, C), -1 if they are not positive."""
    nearest, before = [], 0
    for level in levels:
        apart = (center_form(boxes)[0][:, None] - center_form(level)[0][None]).pow(2).sum(-1).sqrt()  # (G, A)
        nearest.append(apart.topk(min(topk, len(level)), dim=1, largest=False).indices + before)
        before += len(level)
    index = torch.cat(nearest, 1)  # (G, C)
    count = index.shape[1]
    candidates = anchors[index]  # (G, C, 4)
    iou = paired_iou(candidates.flatten(0, 1), boxes.repeat_interleave(count, 0)).view(index.shape)
    threshold = iou.mean(1) + iou.std(1, correction=min(1, count - 1))  # the deviation of one candidate is 0
    inside = to_distances(center_form(candidates)[0], boxes[:, None]).amin(-1) > _MARGIN
    return index, iou.masked_fill((iou < threshold[:, None]) | ~inside, -1)


def _resolve(index: Tensor, iou: Tensor, count: int) -> Tensor:
    """Return the object (count,) of each anchor or BACKGROUND, from anchors and IoUs (G, C) of the candidates."""
    objects = torch.arange(len(index), device=index.device).repeat_interleave(index.shape[1])
    index, iou = index.flatten(), iou.flatten()
    highest = iou.new_full((count,), -1).scatter_reduce(0, index, iou, "amax")
    none = torch.iinfo(torch.int64).max
    best = objects.masked_fill(iou < highest[index], none)
    first = torch.full_like(highest, none, dtype=torch.int64).scatter_reduce(0, index, best, "amin")
    return first.masked_fill(highest < 0, BACKGROUND)
