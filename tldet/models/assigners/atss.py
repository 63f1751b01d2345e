"""Adaptive training sample selection (Zhang et al. 2020, algorithm 1): each object sets its own overlap threshold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tldet.models.assigners.matching import BACKGROUND, spare_crowds
from tldet.models.boxes import center_form, to_distances
from tldet.models.losses import paired_iou
from tldet.structures.target import Target

_CHUNK = 8_000_000  # cells of a distance matrix held at once: 64 MB of offsets
_MARGIN = 0.01  # pixels by which an anchor's center must lie inside the object


def assign_adaptively(levels: Sequence[Tensor], target: Target, *, topk: int, ignore_iof_thr: float) -> Tensor:
    """The anchors of an image that learn its objects.

    On every level the ``topk`` anchors whose centers are nearest to an object's are its candidates. Those that overlap
    it by at least the candidates' mean overlap plus its standard deviation, and whose centers lie inside it, learn it;
    an anchor that several objects want takes the one it overlaps most, the first of equals.

    Args:
        levels: anchors (N, 4) xyxy pixels of every level.
        target: the image's target; rows with ``ignore`` set are never matched.
        topk: candidates a level.
        ignore_iof_thr: a background anchor with at least this share of its area in a crowd region is IGNORED.

    Returns:
        (M,) int64: row of ``target``, BACKGROUND, or IGNORED.
    """
    rows = target.known.objects
    anchors = torch.cat(list(levels))
    if len(rows):
        parts = torch.split(target.boxes[rows], max(1, _CHUNK // max(len(level) for level in levels)))
        wanted = [_candidates(levels, anchors, part, topk) for part in parts]
        matched = _resolve(torch.cat([w[0] for w in wanted]), torch.cat([w[1] for w in wanted]), len(anchors))
    else:
        matched = rows.new_full((len(anchors),), BACKGROUND)
    return spare_crowds(matched, rows, anchors, target, ignore_iof_thr)


def _candidates(levels: Sequence[Tensor], anchors: Tensor, boxes: Tensor, topk: int) -> tuple[Tensor, Tensor]:
    """The C candidates of every box: their places (G, C), and their overlaps (G, C), -1 where they do not learn it."""
    places, before = [], 0
    for level in levels:
        apart = (center_form(boxes)[0][:, None] - center_form(level)[0][None]).pow(2).sum(-1).sqrt()  # (G, N)
        places.append(apart.topk(min(topk, len(level)), dim=1, largest=False).indices + before)
        before += len(level)
    place = torch.cat(places, 1)
    candidates = anchors[place]  # (G, C, 4)
    iou = paired_iou(candidates.flatten(0, 1), boxes.repeat_interleave(place.shape[1], 0)).view(place.shape)
    count = place.shape[1]
    threshold = iou.mean(1) + iou.std(1, correction=min(1, count - 1))  # one candidate alone does not deviate
    inside = to_distances(center_form(candidates)[0], boxes[:, None]).amin(-1) > _MARGIN
    return place, iou.masked_fill((iou < threshold[:, None]) | ~inside, -1)


def _resolve(place: Tensor, iou: Tensor, count: int) -> Tensor:
    """(count,) the object each place takes, from (G, C) places wanted and their overlaps."""
    objects = torch.arange(len(place), device=place.device).repeat_interleave(place.shape[1])
    place, iou = place.flatten(), iou.flatten()
    most = iou.new_full((count,), -1).scatter_reduce(0, place, iou, "amax")
    none = torch.iinfo(torch.int64).max
    best = objects.masked_fill(iou < most[place], none)
    first = torch.full_like(most, none, dtype=torch.int64).scatter_reduce(0, place, best, "amin")
    return first.masked_fill(most < 0, BACKGROUND)
