"""From scored boxes to detections."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from tldet.structures import Detections


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, *, iou: float, keep: int) -> Detections:
    """Non-maximum suppression within each class, the best ``keep`` kept, best first.

    Args:
        boxes: (N, 4) xyxy pixels.
        scores: (N,).
        labels: (N,) int64.
        iou: a box that overlaps a better one of its class by more than this is dropped.
        keep: at most so many detections.
    """
    rows = batched_nms(boxes, scores, labels, iou)[:keep]
    return Detections(boxes[rows], scores[rows], labels[rows])


def top_rows(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and indices of the best ``count`` of ``scores`` (..., N) along the last axis, best first."""
    best = torch.topk(scores, min(count, scores.shape[-1]), dim=-1)
    return best.values, best.indices
