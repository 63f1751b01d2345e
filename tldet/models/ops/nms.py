"""Non-maximum suppression of batches, in eager prediction and in exported graphs."""

from __future__ import annotations

from typing import Any, cast

import torch
import torchvision
from torch import Tensor

from tldet.models.ops.graph import GraphOperator
from tldet.system.device import exporting, true_rows

_AT_ONCE = 25_000  # boxes compared in one NMS on an accelerator (torchvision's limit): 80 MB


def nms_rows(
    boxes: Tensor, scores: Tensor, groups: Tensor, good: Tensor, iou: float, keep: int
) -> tuple[Tensor, Tensor]:
    """Apply NMS to each image within each group.

    Args:
        boxes: (B, N, 4) xyxy pixels, none negative.
        scores: (B, N), none negative.
        groups: (B, N) int64; only boxes of the same group are compared.
        good: (B, N) bool; False drops a box.
        iou: IoU above which the box with the lower score is dropped.
        keep: largest number of boxes of an image, D.

    Returns:
        Rows of the boxes that are kept (B, D), best first and padded with zeros, and their number (B,) per image.
    """
    if exporting():
        rows, counts = NMS_ROWS(boxes, scores, groups, good, iou, keep)
        return rows, counts
    return _nms_rows(boxes, scores, groups, good, iou, keep)


def _nms_rows(
    boxes: Tensor, scores: Tensor, groups: Tensor, good: Tensor, iou: float, keep: int
) -> tuple[Tensor, Tensor]:
    rows = torch.zeros(len(boxes), keep, dtype=torch.int64, device=boxes.device)
    counts = []
    for image, own in enumerate(true_rows(list(good))):
        best = own[batched_nms(boxes[image, own], scores[image, own], groups[image, own], iou)[:keep]]
        rows[image, : len(best)] = best
        counts.append(len(best))
    return rows, torch.tensor(counts)


def _outline(boxes: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    shapes = (boxes.shape[0], given[-1]), (boxes.shape[0],)
    return boxes.new_empty(shapes[0], dtype=torch.int64), boxes.new_empty(shapes[1], dtype=torch.int64)


NMS_ROWS = GraphOperator(
    "nms_rows",
    "(Tensor boxes, Tensor scores, Tensor groups, Tensor good, float iou, SymInt keep) -> (Tensor, Tensor)",
    _nms_rows,
    _outline,
)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Apply NMS within each group and return the rows of the boxes that are kept, best first.

    On an accelerator, groups are moved apart as in torchvision, but without copying a constant to the device.

    Args:
        boxes: (N, 4) xyxy pixels, none negative.
        scores: (N,).
        groups: (N,) int64; only boxes of the same group are compared.
        iou: IoU above which the box with the lower score is dropped.
    """
    if boxes.device.type == "cpu" or not 0 < len(boxes) <= _AT_ONCE:
        return cast(Tensor, torchvision.ops.batched_nms(boxes, scores, groups, iou))
    apart = groups.to(boxes) * (boxes.max() + 1)
    return cast(Tensor, torchvision.ops.nms(boxes + apart[:, None], scores, iou))
